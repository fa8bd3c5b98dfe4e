#ifndef VLART_SHA256_H
#define VLART_SHA256_H

#include <stddef.h>
#include <stdint.h>

void tool_sha256(const void *data, size_t bytes, uint8_t out_digest[32]);

#endif
