/* A security key in software, for tests alone: what OpenSSH loads as SSH_SK_PROVIDER (PROTOCOL.u2f, sk-api.h of its
   sources). Ed25519 keys only; the key handle is the private key, and a touch is not asked for. A file REFUSE in the
   working directory makes it refuse as an absent device does. Needs OpenSSL 3. */
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ED25519 = 1, KEY = 32, SIGNATURE = 64, HASH = 32, UNSUPPORTED = -2, ABSENT = -4, FAILED = -1 };

struct enrolled {
  uint8_t flags;
  uint8_t *public_key;
  size_t public_key_bytes;
  uint8_t *handle;
  size_t handle_bytes;
  uint8_t *signature;
  size_t signature_bytes;
  uint8_t *certificate;
  size_t certificate_bytes;
  uint8_t *data;
  size_t data_bytes;
};

struct signed_by {
  uint8_t flags;
  uint32_t counter;
  uint8_t *r;
  size_t r_bytes;
  uint8_t *s;
  size_t s_bytes;
};

uint32_t sk_api_version(void) { return 0x000a0000; }

int sk_enroll(uint32_t algorithm, const uint8_t *challenge, size_t challenge_bytes,
              const char *application, uint8_t flags, const char *pin, void **options,
              struct enrolled **out) {
  (void)challenge, (void)challenge_bytes, (void)application, (void)pin, (void)options;
  struct enrolled *made = calloc(1, sizeof *made);
  if (algorithm != ED25519) return UNSUPPORTED;
  made->flags = flags;
  made->handle = malloc(KEY);
  made->handle_bytes = made->public_key_bytes = KEY;
  made->public_key = malloc(KEY);
  made->signature = calloc(1, 1); /* an attestation, which nobody asked for */
  RAND_bytes(made->handle, KEY);
  EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, made->handle, KEY);
  size_t bytes = KEY;
  int good = key != NULL && EVP_PKEY_get_raw_public_key(key, made->public_key, &bytes) == 1;
  EVP_PKEY_free(key);
  *out = made;
  return good ? 0 : FAILED;
}

int sk_sign(uint32_t algorithm, const uint8_t *data, size_t bytes, const char *application,
            const uint8_t *handle, size_t handle_bytes, uint8_t flags, const char *pin,
            void **options, struct signed_by **out) {
  (void)pin, (void)options;
  uint8_t text[HASH + 5 + HASH];
  size_t length = SIGNATURE;
  struct signed_by *made = calloc(1, sizeof *made);
  if (algorithm != ED25519 || handle_bytes != KEY) return UNSUPPORTED;
  if (access("REFUSE", F_OK) == 0) return ABSENT;
  made->flags = flags;
  made->counter = 0x01020304;
  made->r = malloc(SIGNATURE);
  made->r_bytes = SIGNATURE;
  EVP_Digest(application, strlen(application), text, NULL, EVP_sha256(), NULL);
  memcpy(text + HASH, (const uint8_t[]){flags, 1, 2, 3, 4}, 5);
  EVP_Digest(data, bytes, text + HASH + 5, NULL, EVP_sha256(), NULL);
  EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, handle_bytes);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int good = EVP_DigestSignInit(context, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestSign(context, made->r, &length, text, sizeof text) == 1;
  EVP_MD_CTX_free(context);
  EVP_PKEY_free(key);
  *out = made;
  return good ? 0 : FAILED;
}

int sk_load_resident_keys(const char *pin, void **options, void ***keys, size_t *count) {
  (void)pin, (void)options;
  *keys = NULL;
  *count = 0;
  return 0;
}
