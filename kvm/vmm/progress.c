/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line. */
#include "kvm/vmm/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/clock.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_read.h"

void progress_start(struct progress *progress, bool quiet, bool terminal_only)
{
	bool terminal = isatty(STDERR_FILENO);

	*progress = (struct progress){
		.enabled = !quiet && (terminal || !terminal_only),
		.terminal = terminal,
	};
}

static unsigned percent_done(const json_t *event)
{
	uint64_t ram = read_number(event, "ram_bytes");
	uint64_t left = read_number(event, "bytes_remaining");

	return ram && left <= ram ? (unsigned)((double)(ram - left) * 100 / (double)ram) : 0;
}

void progress_format(char *line, size_t line_bytes, const json_t *event)
{
	char left[FORMAT_BYTES], rate[FORMAT_BYTES], dirty[FORMAT_BYTES];
	const char *phase = read_text(event, "phase");

	if (!read_number(event, "ram_bytes") || !json_array_size(json_object_get(event, "lanes"))) {
		snprintf(line, line_bytes, "%s", phase);
		return;
	}
	snprintf(line, line_bytes, "%-13s %3u%%  %s left  %s  dirty %s%s  %zu lanes", phase,
		 percent_done(event), format_size(left, read_number(event, "bytes_remaining")),
		 format_rate(rate, read_number(event, "send_rate_bytes_per_s")),
		 format_rate(dirty, read_number(event, "dirty_rate_bytes_per_s")),
		 read_flag(event, "throttled") ? " (slowed)" : "",
		 json_array_size(json_object_get(event, "lanes")));
}

/* A line that wraps cannot be rewritten. */
static size_t terminal_columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 2)
		return 80;
	return size.ws_col;
}

void progress_show(struct progress *progress, const json_t *event)
{
	uint64_t now_ns = clock_now_ns();
	char line[256];

	if (!progress->enabled || now_ns < progress->next_ns)
		return;
	progress_format(line, sizeof(line), event);
	if (progress->terminal) {
		size_t columns = terminal_columns();

		/* Room for the ^C of an interrupt. */
		if (columns > 3 && columns - 3 < strlen(line))
			line[columns - 3] = '\0';
		fprintf(stderr, "\r%s\033[K", line);
		progress->drawn = true;
	} else {
		fprintf(stderr, "%s\n", line);
		progress->next_ns = now_ns + NS_PER_S;
	}
	fflush(stderr);
}

void progress_clear(struct progress *progress)
{
	if (progress->drawn)
		fprintf(stderr, "\r\033[K");
	progress->drawn = false;
}
