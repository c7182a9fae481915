#!/bin/sh
# Generates the Python code of the protocols into OUT (default: this repository). Run through `make proto`.
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -Iproto -Iappliance/oip=proto/inference \
  --python_out="$out" --grpc_python_out="$out" --pyi_out="$out" \
  appliance/oip/open_inference.proto appliance/v1/classification.proto appliance/v1/administration.proto
