/* SPDX-License-Identifier: Apache-2.0 */
/* Figures as people read them. Each returns its argument text, which must hold FORMAT_BYTES. */
#ifndef KVM_VMM_REPORT_FORMAT_H
#define KVM_VMM_REPORT_FORMAT_H

#include <stdint.h>

#define FORMAT_BYTES 32

/* "312.4 MiB", "17 B" */
const char *format_size(char text[FORMAT_BYTES], uint64_t bytes);

/* "1.20 GiB/s" */
const char *format_rate(char text[FORMAT_BYTES], uint64_t bytes_per_s);

/* "12.3 ms", "4.56 s", "780 us" */
const char *format_time(char text[FORMAT_BYTES], uint64_t ns);

/* The same in microseconds, "12346 us", whatever its size. */
const char *format_us(char text[FORMAT_BYTES], uint64_t ns);

/* Replace what is not printable ASCII by '?': words from a peer could steer a terminal. */
char *format_clean(char *text);

#endif
