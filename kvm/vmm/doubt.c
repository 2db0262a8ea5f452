/* SPDX-License-Identifier: Apache-2.0 */
/* Words for a guest in doubt; see the header. */
#include "kvm/vmm/doubt.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "core/error.h"
#include "kvm/vmm/runtime_dir.h"

int doubt_find(const char *guest, struct ramlift_doubt *doubt, struct ramlift_error *error)
{
	char directory[4096];
	int ret = state_dir(directory, sizeof(directory), error);

	return ret ? ret : ramlift_doubt_read(directory, guest, doubt, error);
}

const char *doubt_time(char text[DOUBT_TIME_BYTES], int64_t time_s)
{
	time_t seconds = (time_t)time_s;
	struct tm utc;

	if (!gmtime_r(&seconds, &utc) ||
	    !strftime(text, DOUBT_TIME_BYTES, "%Y-%m-%d %H:%M:%S UTC", &utc))
		snprintf(text, DOUBT_TIME_BYTES, "%s", "an unknown time");
	return text;
}

json_t *doubt_json(const struct ramlift_doubt *doubt)
{
	char since[DOUBT_TIME_BYTES];

	return json_pack("{s:s, s:s, s:I, s:s, s:I}", "to", doubt->peer, "session", doubt->session,
			 "generation", (json_int_t)doubt->generation, "since",
			 doubt_time(since, doubt->time_s), "since_s", (json_int_t)doubt->time_s);
}

void doubt_hint(char text[DOUBT_HINT_BYTES], const struct ramlift_doubt *doubt, bool alive)
{
	const char *guest = doubt->guest, *to = doubt->peer;

	if (alive)
		snprintf(text, DOUBT_HINT_BYTES,
			 "%s was told to run guest %s and has not answered. Its process here keeps "
			 "it paused, and goes on asking. If you know better:\n"
			 "  ramlift resolve %s --destination    it runs there, or did: "
			 "it is given up here, and its memory with it\n"
			 "  ramlift resolve %s --source --yes   it does not run there and never "
			 "will: it runs on here. If that is wrong it runs twice, and destroys its "
			 "data",
			 to, guest, guest, guest);
	else
		snprintf(text, DOUBT_HINT_BYTES,
			 "%s was told to run guest %s and has not answered. Its process here has "
			 "died, and the guest's memory with it; only a QEMU may still hold it, "
			 "paused.\n"
			 "  ramlift resolve %s --ask            ask there again, with --tls-dir or "
			 "--psk-file as for the migration\n"
			 "  ramlift resolve %s --destination    it runs there, or did: "
			 "nothing of it is here any more\n"
			 "  ramlift resolve %s --source --yes   it does not run there and never "
			 "will: it is lost, and may be started anew here (in QEMU: 'cont')",
			 to, guest, guest, guest, guest);
}

int doubt_refuse(const struct ramlift_doubt *doubt, struct ramlift_error *error)
{
	char since[DOUBT_TIME_BYTES];

	return error_set(error, -EBUSY,
			 "guest %s has been in doubt since %s: it may run at %s; 'ramlift resolve "
			 "%s --ask' asks there, 'ramlift status %s' tells all",
			 doubt->guest, doubt_time(since, doubt->time_s), doubt->peer, doubt->guest,
			 doubt->guest);
}
