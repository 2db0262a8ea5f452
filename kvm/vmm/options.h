/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options: text in, number out, everything bounded. All return 0, -EINVAL (not of the
 * form) or -ERANGE (out of bounds) with a sentence in error, and leave the result untouched then.
 */
#ifndef KVM_VMM_OPTIONS_H
#define KVM_VMM_OPTIONS_H

#include <stdint.h>

#include "core/ramlift.h"
#include "kvm/vmm/machine.h"

/* Sizes end here; no host has more. */
#define OPTION_MAX_SIZE_BYTES (1ull << 46)

/* Rates end here: 1 TiB a second. */
#define OPTION_MAX_RATE_BYTES (1ull << 40)

#define OPTION_MAX_DEVICE_NAME 64u /* of an RDMA device, with the final NUL */

enum option_transport { TRANSPORT_AUTO, TRANSPORT_RDMA, TRANSPORT_TCP, TRANSPORT_COUNT };

/* "4096", "256M", "1.5G": K, M, G and T are powers of 1024. At least 1 byte. */
int option_size(const char *option, const char *text, uint64_t *bytes, struct ramlift_error *error);

/* A size a second, or "500Mbit", "10Gbit": powers of 1000, eight bits a byte. */
int option_rate(const char *option, const char *text, uint64_t *bytes_per_s,
		struct ramlift_error *error);

/* Digits only. */
int option_number(const char *option, const char *text, uint64_t minimum, uint64_t maximum,
		  uint64_t *number, struct ramlift_error *error);

/* One of n_words words; the result is its index. */
int option_word(const char *option, const char *text, const char *const *words, unsigned n_words,
		unsigned *index, struct ramlift_error *error);

/* "hot=32M,rate=2000,pattern=skewed", each at most once; what is not named keeps its value. */
int option_workload(const char *text, struct workload *workload, struct ramlift_error *error);

/* "host:port" or "[v6]:port"; port 0 only where any_port. Only the form is checked. */
int option_address(const char *option, const char *text, bool any_port,
		   struct ramlift_error *error);

/* 1 to 63 of A-Z a-z 0-9 . _ - and no dot in front: a name is also part of a file's name. */
int option_guest_name(const char *text, struct ramlift_error *error);

int option_transport(const char *text, enum option_transport *transport,
		     struct ramlift_error *error);
int option_divergence(const char *text, enum ramlift_on_divergence *on_divergence,
		      struct ramlift_error *error);

/* Names of RDMA devices; list points into the same object. */
struct option_rails {
	unsigned n;
	const char *list[RAMLIFT_MAX_RAILS];
	char names[RAMLIFT_MAX_RAILS][OPTION_MAX_DEVICE_NAME];
};

/* "mlx5_0,mlx5_1", each once. Whether there are such devices is seen when they are used. */
int option_rails(const char *text, struct option_rails *rails, struct ramlift_error *error);

/* "0,1": the nodes that memory is split over, in this order; a node may be named several times. */
int option_numa_nodes(const char *text, struct machine_config *config, struct ramlift_error *error);

/* "0:1,1:0": for each node of the source, at most once, a node of this host. */
int option_numa_map(const char *text, struct machine_numa_map *map, struct ramlift_error *error);

/* "all", "demand" or "budget=4G"; only the last sets budget_bytes. */
int option_pin(const char *text, enum ramlift_pin *pin, uint64_t *budget_bytes,
	       struct ramlift_error *error);

/* The transports in order of preference; returns how many. */
unsigned option_transport_list(enum option_transport transport,
			       const struct ramlift_transport *transports[2]);

#endif
