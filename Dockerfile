# One file for both kinds of appliance. Build from a checkout:
#   docker build --build-arg FLAVOUR=cpu -t appliance .
#   docker build --build-arg FLAVOUR=gpu --build-arg BASE=<an image with Python 3.11, CUDA 13 and cuDNN 9> -t appliance-gpu .
# Run with the site directory as the only writable place:
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -v /srv/site:/site -p 8443:8443 appliance
# No container engine was at hand when this was written: it has not been built yet.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ARG FLAVOUR=cpu
ENV ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY locks/${FLAVOUR}.txt /tmp/lock.txt
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r /tmp/lock.txt
COPY pyproject.toml README.md /src/
COPY appliance /src/appliance
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation /src && rm -r /src
USER 10001:10001
VOLUME /site
EXPOSE 8443
ENTRYPOINT ["appliance"]
CMD ["serve", "--config", "/site/appliance.toml"]
