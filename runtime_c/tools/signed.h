/* Whether a bundle is signed. The signature is ssh-keygen's affair, which must be installed: OpenSSH 8.2 or newer. */
#ifndef VLART_SIGNED_H
#define VLART_SIGNED_H

#include <stdbool.h>

#include "vlart/vlart.h"

/* OK where one of the signers (a file in ssh-keygen's ALLOWED SIGNERS format) signed SHA256SUMS of the bundle, every
   file that it lists has its hash, and the bundle has no others. UNTRUSTED otherwise. The signature cannot bind
   engines/, which a board makes: files there are refused unless `own_engines` says that the caller knows them to be the
   board's own, or makes them anew; links and hidden things there always. */
vlart_status_t tool_require_signed(const char *bundle, const char *signers, bool own_engines,
                                   vlart_diag_t *diag);

/* Opens a bundle, if `signers` is not NULL only one that they signed. The arena is the caller's to free. */
vlart_status_t tool_open_bundle(const char *path, const char *signers, bool own_engines,
                                void **out_arena, vlart_bundle_t **out_bundle, vlart_diag_t *diag);

/* The list of signers that `vlacompile device enroll` put in its usual place on this device; NULL: none. */
const char *tool_enrolled(void);

#endif
