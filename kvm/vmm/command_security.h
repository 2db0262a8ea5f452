/* SPDX-License-Identifier: Apache-2.0 */
/* The options of options_security.h on the command line. */
#ifndef KVM_VMM_COMMAND_SECURITY_H
#define KVM_VMM_COMMAND_SECURITY_H

#include <argp.h>

#include "kvm/vmm/options_security.h"

/* For command_parse_secure(), which gives it a struct option_security. */
extern const struct argp command_security_argp;

#endif
