/* Preloaded into h2load, which has no option for a client certificate: every TLS context gets one.
 * The names are OpenSSL 3's own; its headers are not needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

enum { PEM = 1 };
int SSL_CTX_use_certificate_file(void *context, const char *path, int type);
int SSL_CTX_use_PrivateKey_file(void *context, const char *path, int type);

void *SSL_CTX_new(const void *method) {
  void *(*original)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
  void *context = original(method);
  if (!context || SSL_CTX_use_certificate_file(context, getenv("CLIENT_CERTIFICATE"), PEM) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, getenv("CLIENT_KEY"), PEM) != 1)
    abort();
  return context;
}
