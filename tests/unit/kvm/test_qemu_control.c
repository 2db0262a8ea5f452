/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU is told: against a monitor that remembers what it was told and how it was before. */
#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "fake_qmp.h"
#include "kvm/qemu/control.h"

/* A QEMU, as far as its migration goes. */
static struct model {
	pthread_mutex_t lock;
	json_t *capabilities; /* name: state */
	json_t *parameters;
	bool running;
	const char *status;	/* of the migration; "": none yet */
	unsigned ends_after;	/* so many questions end a cancelled migration */
	bool resumes;		/* by itself, when that is over */
	unsigned runs_after;	/* so many questions after `cont` */
	const char *refuses;	/* a command */
	unsigned refuses_times; /* 0: always */
	unsigned n_changes, n_cancels, n_conts;
	char log[256]; /* commands that change something, and what matters of them */
} model;

/* The test has the model's lock but while it talks to QEMU. */
#define TALK(call) (pthread_mutex_unlock(&model.lock), locked_again(call))

static int locked_again(int ret)
{
	pthread_mutex_lock(&model.lock);
	return ret;
}

static struct fake_qmp *fake;
static struct qmp *qmp;
static struct ramlift_error error;

static char *returned(json_t *value)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY), *result;

	if (!text || asprintf(&result, "\"return\": %s", text) < 0)
		abort();
	free(text);
	json_decref(value);
	return result;
}

static void note(const char *word)
{
	if (strlen(model.log) + strlen(word) + 2 < sizeof(model.log))
		strcat(strcat(model.log, model.log[0] ? " " : ""), word);
}

static json_t *list_capabilities(void)
{
	json_t *list = json_array(), *state;
	const char *name;

	json_object_foreach(model.capabilities, name, state) json_array_append_new(
		list, json_pack("{s:s, s:O}", "capability", name, "state", state));
	return list;
}

static void set_capabilities(const json_t *arguments)
{
	json_t *entry;
	size_t i;

	model.n_changes += (unsigned)json_array_size(json_object_get(arguments, "capabilities"));
	json_array_foreach(json_object_get(arguments, "capabilities"), i, entry) json_object_set(
		model.capabilities, json_string_value(json_object_get(entry, "capability")),
		json_object_get(entry, "state"));
}

static json_t *query_migrate(void)
{
	if (!strcmp(model.status, "cancelling") && !model.ends_after--) {
		model.status = "cancelled";
		model.running = model.running || model.resumes;
	}
	if (!model.status[0])
		return json_object();
	return json_pack("{s:s, s:s, s:{s:i, s:i, s:i, s:i}}", "status", model.status, "error-desc",
			 "Unable to write to socket", "ram", "remaining", 4096 * 7,
			 "dirty-pages-rate", 50, "page-size", 4096, "dirty-sync-count", 3);
}

static bool is_running(void)
{
	if (model.n_conts && !model.running && !model.runs_after--)
		model.running = true;
	return model.running;
}

static json_t *execute(const char *command, const json_t *arguments)
{
	if (!strcmp(command, "query-migrate-capabilities"))
		return list_capabilities();
	if (!strcmp(command, "query-migrate-parameters"))
		return json_incref(model.parameters);
	if (!strcmp(command, "query-migrate"))
		return query_migrate();
	if (!strcmp(command, "query-status"))
		return json_pack("{s:b}", "running", is_running());
	note(command);
	if (!strcmp(command, "migrate-set-capabilities")) {
		set_capabilities(arguments);
	} else if (!strcmp(command, "migrate-set-parameters")) {
		json_object_update(model.parameters, (json_t *)arguments);
	} else if (!strcmp(command, "migrate_cancel")) {
		model.n_cancels++;
		if (!strcmp(model.status, "active") || !strcmp(model.status, "device"))
			model.status = "cancelling";
	} else if (!strcmp(command, "cont")) {
		model.n_conts++;
	} else if (!strcmp(command, "migrate") || !strcmp(command, "migrate-incoming")) {
		note(json_string_value(json_object_get(arguments, "uri")));
	} else if (strcmp(command, "stop")) {
		return NULL;
	}
	return json_object();
}

static bool refuses(const char *command)
{
	if (!model.refuses || strcmp(command, model.refuses))
		return false;
	if (model.refuses_times && !--model.refuses_times)
		model.refuses = NULL; /* for the last time */
	return true;
}

static char *respond(void *context, const char *command, const json_t *arguments)
{
	json_t *result;
	char *text;

	(void)context;
	pthread_mutex_lock(&model.lock);
	if (refuses(command))
		text = strdup("\"error\": {\"class\": \"GenericError\", \"desc\": \"not today\"}");
	else
		text = (result = execute(command, arguments)) ? returned(result) : NULL;
	pthread_mutex_unlock(&model.lock);
	return text;
}

static const struct fake_qmp_config config = { .greeting = FAKE_QMP_GREETING, .respond = respond };

static int set_up(void **state)
{
	(void)state;
	model = (struct model){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.capabilities =
			json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:b}", "late-block-activate",
				  0, "events", 0, "return-path", 1, "multifd", 0, "xbzrle", 1,
				  "auto-converge", 1, "rdma-pin-all", 1, "mapped-ram", 0),
		.parameters = json_pack("{s:i, s:i, s:i, s:s, s:s, s:i}", "downtime-limit", 300,
					"max-bandwidth", 134217728, "multifd-channels", 2,
					"multifd-compression", "zlib", "tls-creds", "",
					"cpu-throttle-initial", 20),
		.running = true,
		.status = "",
	};
	memset(&error, 0, sizeof(error));
	fake = fake_qmp_start(&config);
	pthread_mutex_lock(&model.lock);
	return !fake || TALK(qmp_open(fake_qmp_path(fake), &qmp, &error));
}

static int tear_down(void **state)
{
	(void)state;
	pthread_mutex_unlock(&model.lock);
	qmp_close(qmp);
	fake_qmp_stop(fake);
	json_decref(model.capabilities);
	json_decref(model.parameters);
	return 0;
}

static bool capability(const char *name)
{
	return json_is_true(json_object_get(model.capabilities, name));
}

static json_int_t parameter(const char *name)
{
	return json_integer_value(json_object_get(model.parameters, name));
}

static const struct control_settings settings = {
	.n_multifd = 4,
	.max_downtime_ns = 20500001, /* rounded up */
	.auto_converge = false,
};

static void test_source_is_set_and_put_back(void **unused)
{
	json_t *capabilities = json_deep_copy(model.capabilities);
	json_t *parameters = json_deep_copy(model.parameters);
	json_t *before = NULL;

	(void)unused;
	assert_int_equal(TALK(control_set_source(qmp, &settings, &before, &error)), 0);
	assert_true(capability("events") && capability("return-path") && capability("multifd"));
	assert_false(capability("xbzrle") || capability("auto-converge") ||
		     capability("mapped-ram"));
	assert_true(capability("rdma-pin-all")); /* none of our business */
	assert_int_equal(json_object_size(model.capabilities), 8);
	assert_int_equal(model.n_changes, 4); /* those that differ */
	assert_int_equal(parameter("downtime-limit"), 21);
	assert_int_equal(parameter("multifd-channels"), 4);
	assert_true(parameter("max-bandwidth") >= 1ll << 40);
	assert_string_equal(
		json_string_value(json_object_get(model.parameters, "multifd-compression")),
		"none");
	TALK((control_restore(qmp, before), 0));
	assert_true(json_equal(model.capabilities, capabilities));
	assert_true(json_equal(model.parameters, parameters));
	json_decref(capabilities);
	json_decref(parameters);
}

static void test_without_multifd(void **unused)
{
	struct control_settings plain = { .max_downtime_ns = NS_PER_S,
					  .bandwidth_bytes_per_s = 12345678,
					  .auto_converge = true };
	json_t *before = NULL;

	(void)unused;
	json_object_set_new(model.capabilities, "multifd", json_true());
	assert_int_equal(TALK(control_set_source(qmp, &plain, &before, &error)), 0);
	assert_false(capability("multifd"));
	assert_true(capability("auto-converge"));
	assert_int_equal(parameter("multifd-channels"), 2);
	assert_int_equal(parameter("max-bandwidth"), 12345678);
	json_decref(before);
}

/* One of the two is refused: all is as it was, and QEMU's words are told. */
static void test_refused_settings_are_put_back(void **unused)
{
	static const char *const refusals[] = { "migrate-set-parameters",
						"migrate-set-capabilities" };
	json_t *capabilities = json_deep_copy(model.capabilities);
	json_t *parameters = json_deep_copy(model.parameters);

	(void)unused;
	for (unsigned i = 0; i < 2; i++) {
		json_t *before = NULL;

		model.refuses = refusals[i];
		assert_int_equal(TALK(control_set_source(qmp, &settings, &before, &error)),
				 -EREMOTEIO);
		assert_non_null(strstr(error.text, "not today"));
		assert_null(before);
		assert_true(json_equal(model.capabilities, capabilities));
		assert_true(json_equal(model.parameters, parameters));
	}
	json_decref(capabilities);
	json_decref(parameters);
}

static void test_a_qemu_that_cannot(void **unused)
{
	json_t *before = NULL;

	(void)unused;
	json_object_set_new(model.parameters, "tls-creds", json_string("tls0"));
	assert_int_equal(TALK(control_set_source(qmp, &settings, &before, &error)), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "tls-creds"));
	assert_true(capability("xbzrle") && !capability("multifd"));
	assert_int_equal(parameter("downtime-limit"), 300);
	json_object_del(model.capabilities, "return-path");
	assert_int_equal(TALK(control_set_source(qmp, &settings, &before, &error)), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "return path"));
	assert_int_equal(TALK(control_set_destination(qmp, 2, &error)), -EOPNOTSUPP);
	assert_true(capability("xbzrle"));
	assert_null(before);
}

static void test_destination_is_set(void **unused)
{
	(void)unused;
	assert_int_equal(TALK(control_set_destination(qmp, 8, &error)), 0);
	assert_true(capability("multifd") && capability("return-path") && !capability("xbzrle"));
	assert_true(capability("auto-converge")); /* the source's affair */
	assert_true(
		capability("late-block-activate")); /* the disks are the source's until COMMIT */
	assert_int_equal(parameter("multifd-channels"), 8);
	assert_int_equal(parameter("downtime-limit"), 300);
	model.log[0] = '\0';
	assert_int_equal(TALK(control_incoming(qmp, "/run/x/qemu", &error)), 0);
	assert_string_equal(model.log, "stop migrate-incoming unix:/run/x/qemu");
	model.log[0] = '\0';
	assert_int_equal(TALK(control_migrate(qmp, 49152, &error)), 0);
	assert_string_equal(model.log, "migrate tcp:127.0.0.1:49152");
	model.refuses = "stop";
	assert_int_equal(TALK(control_incoming(qmp, "/run/x/qemu", &error)), -EREMOTEIO);
}

/* How a guest comes back. */
static void take_back(const char *status, bool was_running, bool runs_now, bool resumes,
		      unsigned n_conts)
{
	model.status = status;
	model.running = runs_now;
	model.resumes = resumes;
	model.ends_after = 2;
	model.runs_after = 3;
	model.n_conts = model.n_cancels = 0;
	error.code = 0;
	if (TALK(control_take_back(qmp, was_running, &error)))
		fail_msg("%s: %s", status, error.text);
	assert_int_equal(model.n_cancels, 1);
	assert_int_equal(model.n_conts, n_conts);
	assert_true(model.running == was_running || n_conts); /* which QEMU has accepted */
	assert_string_not_equal(model.status, "cancelling");
}

static void test_take_back(void **unused)
{
	static const char *const states[] = { "",	   "none",   "active",	 "device",
					      "cancelled", "failed", "completed" };

	(void)unused;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		take_back(states[i], true, true, false, 0);  /* it still runs */
		take_back(states[i], true, false, false, 1); /* it was stopped for the switchover */
		take_back(states[i], false, false, false, 0); /* it was paused and stays so */
	}
	take_back("device", true, false, true, 0); /* QEMU runs it by itself */
}

static void test_taking_back_fails(void **unused)
{
	(void)unused;
	/* The end of a migration is not complete yet: QEMU refuses for a moment. */
	model.running = false;
	model.refuses = "cont";
	model.refuses_times = 3;
	assert_int_equal(TALK(control_take_back(qmp, true, &error)), 0);
	assert_int_equal(model.n_conts, 1);
	assert_int_equal(error.code, 0);
	/* There is nothing to cancel, and all the same a guest to run. */
	model.n_conts = 0;
	model.refuses = "migrate_cancel";
	model.running = false;
	assert_int_equal(TALK(control_take_back(qmp, true, &error)), 0);
	assert_int_equal(model.n_conts, 1);
	fake_qmp_hang_up(fake);
	assert_int_equal(TALK(control_take_back(qmp, true, &error)), -ECONNRESET);
}

static void say_event(const char *name, uint64_t real_ns, const char *data)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"timestamp\": {\"seconds\": %" PRIu64 ", \"microseconds\": %" PRIu64
		 "}, \"event\": \"%s\", \"data\": %s}\r\n",
		 real_ns / NS_PER_S, real_ns % NS_PER_S / NS_PER_US, name, data);
	fake_qmp_say(fake, text);
}

/* Events are there when the command behind them has been answered. */
static int follow(struct control_progress *progress)
{
	json_t *answer;

	assert_int_equal(TALK(qmp_call(qmp, "query-status", NULL, &answer, &error)), 0);
	json_decref(answer);
	return TALK(control_follow(qmp, progress, &error));
}

static uint64_t real_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Some seconds of doubt: two clocks are read one after the other, and the machine may be busy. */
#define DOUBT_NS (5 * NS_PER_S)

static void assert_stopped(struct control_progress *progress, uint64_t begin_ns, uint64_t ago_ns)
{
	assert_true(progress->guest_stopped);
	assert_true(progress->stopped_ns + DOUBT_NS >= begin_ns - ago_ns);
	assert_true(progress->stopped_ns <= clock_now_ns() - ago_ns + DOUBT_NS);
}

static void test_when_the_guest_stopped(void **unused)
{
	struct control_progress progress = { 0 };
	uint64_t begin_ns = clock_now_ns(), first_ns;

	(void)unused;
	assert_int_equal(follow(&progress), 0);
	assert_false(progress.guest_stopped);
	say_event("STOP", real_now_ns() - 20 * NS_PER_S, "{}");
	assert_int_equal(follow(&progress), 0);
	assert_stopped(&progress, begin_ns, 20 * NS_PER_S);
	first_ns = progress.stopped_ns;
	say_event("STOP", real_now_ns(), "{}"); /* the first one counts */
	assert_int_equal(follow(&progress), 0);
	assert_int_equal(progress.stopped_ns, first_ns);
	say_event("RESUME", real_now_ns(), "{}");
	assert_int_equal(follow(&progress), 0);
	assert_false(progress.guest_stopped);
	/* The time of day was changed: as if it had happened now. */
	for (unsigned i = 0; i < 2; i++) {
		progress = (struct control_progress){ 0 };
		begin_ns = clock_now_ns();
		say_event("STOP", real_now_ns() + (i ? 3600 : -3600) * NS_PER_S, "{}");
		assert_int_equal(follow(&progress), 0);
		assert_stopped(&progress, begin_ns, 0);
	}
}

static void test_how_the_migration_ends(void **unused)
{
	struct control_progress progress = { 0 };

	(void)unused;
	model.status = "active";
	say_event("MIGRATION", 0, "{\"status\": \"setup\"}");
	say_event("MIGRATION_PASS", 0, "{\"pass\": 1}");
	say_event("MIGRATION", 0, "{\"status\": \"active\"}");
	say_event("MIGRATION", 0, "{}");
	say_event("MIGRATION", 0, "[17]");
	assert_int_equal(follow(&progress), 0);
	assert_false(progress.completed);
	say_event("MIGRATION", 0, "{\"status\": \"cancelling\"}");
	assert_int_equal(follow(&progress), -ECANCELED);
	say_event("MIGRATION", 0, "{\"status\": \"failed\"}");
	assert_int_equal(follow(&progress), -EREMOTEIO);
	assert_string_equal(error.text, "QEMU's migration failed: Unable to write to socket");
	model.refuses = "query-migrate";
	say_event("MIGRATION", 0, "{\"status\": \"failed\"}");
	assert_int_equal(follow(&progress), -EREMOTEIO);
	assert_string_equal(error.text, "QEMU's migration failed: its log says why");
	say_event("BALLOON_CHANGE", 0, "{\"actual\": 1048576}");
	assert_int_equal(follow(&progress), -EBUSY);
	assert_non_null(strstr(error.text, "balloon"));
	say_event("MIGRATION", 0, "{\"status\": \"completed\"}");
	assert_int_equal(follow(&progress), 0);
	assert_true(progress.completed);
	fake_qmp_hang_up(fake);
	assert_int_equal(TALK(control_follow(qmp, &progress, &error)), -ECONNRESET);
}

static void test_figures(void **unused)
{
	struct control_progress progress = { 0 };

	(void)unused;
	model.status = "active";
	assert_int_equal(TALK(control_query(qmp, &progress, &error)), 0);
	assert_int_equal(progress.remaining_bytes, 7 * 4096);
	assert_int_equal(progress.dirty_bytes_per_s, 50 * 4096);
	assert_int_equal(progress.iterations, 3);
	progress = (struct control_progress){ 0 };
	assert_int_equal(TALK(control_ask(qmp, &error)), 0);
	assert_int_equal(follow(&progress), 0);
	assert_int_equal(progress.remaining_bytes, 7 * 4096);
	model.status = "failed";
	assert_int_equal(TALK(control_query(qmp, &progress, &error)), -EREMOTEIO);
	assert_non_null(strstr(error.text, "Unable to write"));
	model.status = "cancelled";
	assert_int_equal(TALK(control_query(qmp, &progress, &error)), -ECANCELED);
	model.status = "completed";
	assert_int_equal(TALK(control_query(qmp, &progress, &error)), 0);
	assert_true(progress.completed);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_source_is_set_and_put_back),
		TEST(test_without_multifd),
		TEST(test_refused_settings_are_put_back),
		TEST(test_a_qemu_that_cannot),
		TEST(test_destination_is_set),
		TEST(test_take_back),
		TEST(test_taking_back_fails),
		TEST(test_when_the_guest_stopped),
		TEST(test_how_the_migration_ends),
		TEST(test_figures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
