/* SPDX-License-Identifier: Apache-2.0 */
/* Figures as people read them: three digits or so, and a unit. */
#include "kvm/vmm/report_format.h"

#include <stdio.h>

#include "core/clock.h"

static void scaled(char *text, uint64_t value, const char *tail)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double figure = (double)value;
	unsigned unit = 0;

	while (figure >= 1023.95) {
		figure /= 1024;
		unit++;
	}
	if (unit)
		snprintf(text, FORMAT_BYTES, "%.*f %s%s", figure < 9.995 ? 2 : 1, figure,
			 units[unit], tail);
	else
		snprintf(text, FORMAT_BYTES, "%.0f B%s", figure, tail);
}

const char *format_size(char text[FORMAT_BYTES], uint64_t bytes)
{
	scaled(text, bytes, "");
	return text;
}

const char *format_rate(char text[FORMAT_BYTES], uint64_t bytes_per_s)
{
	scaled(text, bytes_per_s, "/s");
	return text;
}

const char *format_time(char text[FORMAT_BYTES], uint64_t ns)
{
	double figure = (double)ns;

	if (ns < NS_PER_MS)
		snprintf(text, FORMAT_BYTES, "%.0f us", figure / NS_PER_US);
	else if (ns < NS_PER_S)
		snprintf(text, FORMAT_BYTES, "%.*f ms", ns < 100 * NS_PER_MS ? 2 : 1,
			 figure / NS_PER_MS);
	else
		snprintf(text, FORMAT_BYTES, "%.2f s", figure / NS_PER_S);
	return text;
}

const char *format_us(char text[FORMAT_BYTES], uint64_t ns)
{
	snprintf(text, FORMAT_BYTES, "%.0f us", (double)ns / NS_PER_US);
	return text;
}

char *format_clean(char *text)
{
	for (char *at = text; *at; at++) {
		if (*at < ' ' || *at > '~')
			*at = '?';
	}
	return text;
}
