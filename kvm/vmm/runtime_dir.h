/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where this user's files are: control sockets in the runtime directory, journals in the state
 * directory. Both belong to the user alone.
 */
#ifndef KVM_VMM_RUNTIME_DIR_H
#define KVM_VMM_RUNTIME_DIR_H

#include <stddef.h>

struct ramlift_error;

/*
 * Copy the path and make the directory, mode 0700, if it is not there. -EACCES: it is another
 * user's, or others may write to it; -ENAMETOOLONG; what mkdir(2) returns.
 */
int runtime_dir(char *path, size_t path_bytes, struct ramlift_error *error);
int state_dir(char *path, size_t path_bytes, struct ramlift_error *error);

#endif
