/* SPDX-License-Identifier: Apache-2.0 */
#include "forked_destination.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/journal.h"
#include "tests/support/cmocka_all.h"

static void fall_when_committed(void *context, const struct ramlift_stats *stats)
{
	(void)context;
	if (stats->phase == RAMLIFT_PHASE_COMMITTED)
		raise(SIGKILL);
}

static int fall_before_it_runs(void *guest, struct ramlift_error *error)
{
	(void)guest;
	(void)error;
	raise(SIGKILL);
	return 0;
}

static void be_the_destination(struct forked *forked, enum fall fall, int tell_fd)
{
	const struct ramlift_transport *tcp = ramlift_transport_tcp();
	struct ramlift_guest_ops ops = fake_guest_ops;
	struct ramlift_destination_config config;
	struct ramlift_destination *destination;
	struct fake_guest guest;
	uint16_t port;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fake_guest_init(&guest, 0);
	ramlift_destination_config_init(&config);
	if (fall == FALL_STARTED)
		ops.resume = fall_before_it_runs;
	if (fall == FALL_COMMITTED)
		config.progress = fall_when_committed;
	config.guest_ops = &ops;
	config.guest = &guest;
	config.listen = "127.0.0.1:0";
	config.transports = &tcp;
	config.n_transports = 1;
	config.state_dir = forked->state_dir;
	if (ramlift_destination_new(&config, &destination, NULL))
		_exit(1);
	port = ramlift_destination_port(destination);
	if (write(tell_fd, &port, sizeof(port)) != sizeof(port))
		_exit(1);
	_exit(ramlift_destination_run(destination, NULL) ? 2 : 0);
}

void forked_start(struct forked *forked, enum fall fall)
{
	uint16_t port;
	int tell[2];

	memset(forked, 0, sizeof(*forked));
	strcpy(forked->state_dir, "/tmp/ramlift-test-XXXXXX");
	assert_non_null(mkdtemp(forked->state_dir));
	assert_int_equal(pipe(tell), 0);
	forked->pid = fork();
	assert_true(forked->pid >= 0);
	if (!forked->pid)
		be_the_destination(forked, fall, tell[1]);
	close(tell[1]);
	assert_int_equal(read(tell[0], &port, sizeof(port)), sizeof(port));
	close(tell[0]);
	snprintf(forked->listen, sizeof(forked->listen), "127.0.0.1:%u", port);
}

bool forked_join(struct forked *forked)
{
	int status;

	assert_int_equal(waitpid(forked->pid, &status, 0), forked->pid);
	forked->pid = 0;
	return WIFSIGNALED(status);
}

void forked_fini(struct forked *forked)
{
	char command[80];

	if (forked->pid) {
		kill(forked->pid, SIGKILL);
		forked_join(forked);
	}
	snprintf(command, sizeof(command), "rm -r %s", forked->state_dir);
	assert_int_equal(system(command), 0);
}

enum journal_event forked_last_word(const struct forked *forked)
{
	struct journal_history history;
	enum journal_event event;

	assert_int_equal(journal_read(forked->state_dir, "fake", &history, NULL), 0);
	assert_int_equal(history.n_sessions, 1);
	event = history.sessions[0].event;
	journal_history_fini(&history);
	return event;
}
