/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each ioctl of dirty tracking and of a vCPU's state fails once. Whoever it fails for says so, or
 * can do without it; no write is lost that was not told to be, and nothing is left tracked.
 *
 * fake_kvm.c is compiled with another name for its ioctl(), so that this file's comes before it.
 */
#include "unit.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake_kvm.h"
#include "fake_sink.h"
#include "kvm/dirty_log.h"
#include "kvm/dirty_ring.h"
#include "kvm/vcpu_state.h"

#define ENTRIES	    256u
#define XSAVE_BYTES 8192
#define N_MSRS	    3u

int fake_kvm_ioctl(int fd, unsigned long request, ...);
#undef __wrap_ioctl
int __wrap_ioctl(int fd, unsigned long request, ...);

static const uint64_t n_pages[FAKE_KVM_REGIONS] = { 1000, 333 };

static struct {
	unsigned fail_in; /* the nth from now fails, once; 0: none */
	bool failed;
	unsigned long request; /* which that was */
	int fd;		       /* all of a vCPU's, its VM's and KVM's own */
	pthread_mutex_t lock;  /* a ring has a thread of its own */
} injected = { .fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER };

static bool fails_now(unsigned long request)
{
	bool now;

	pthread_mutex_lock(&injected.lock);
	now = injected.fail_in && !--injected.fail_in;
	if (now) {
		injected.failed = true;
		injected.request = request;
	}
	pthread_mutex_unlock(&injected.lock);
	return now;
}

static void fail_nth(unsigned nth)
{
	pthread_mutex_lock(&injected.lock);
	injected.fail_in = nth;
	injected.failed = false;
	pthread_mutex_unlock(&injected.lock);
}

static int access_msrs(unsigned long request, struct kvm_msrs *msrs)
{
	for (uint32_t i = 0; i < msrs->nmsrs && request == KVM_GET_MSRS; i++)
		msrs->entries[i].data = msrs->entries[i].index * 3ull;
	return (int)msrs->nmsrs;
}

static int list_msrs(struct kvm_msr_list *list)
{
	static const uint32_t indices[N_MSRS] = { 0x10, 0x174, 0x6e0 };
	bool fits = list->nmsrs >= N_MSRS;

	list->nmsrs = N_MSRS;
	if (fits)
		memcpy(list->indices, indices, sizeof(indices));
	return fits ? 0 : -E2BIG;
}

/* A vCPU of which everything can be read and set. */
static int vcpu_ioctl(unsigned long request, void *argument)
{
	switch (request) {
	case KVM_CHECK_EXTENSION:
		return (unsigned long)argument == KVM_CAP_XSAVE2 ? XSAVE_BYTES : 1;
	case KVM_GET_MSR_INDEX_LIST:
		return list_msrs(argument);
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return access_msrs(request, argument);
	case KVM_GET_TSC_KHZ:
		return 2000000;
	default:
		return 0;
	}
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;
	int ret;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fails_now(request)) {
		errno = EIO;
		return -1;
	}
	if (fd != injected.fd)
		return fake_kvm_ioctl(fd, request, argument);
	ret = vcpu_ioctl(request, argument);
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}

/* ---- dirty tracking ---- */

enum kind { RING, LOG, LOG_MANUAL, KIND_COUNT };

struct tracker {
	struct fake_kvm kvm;
	struct ramlift_dirty_sink sink;
	struct ramlift_dirty_ring *ring;
	struct ramlift_dirty_log *log;
	const struct ramlift_dirty_source_ops *ops;
	void *source; /* ring or log */
	uint64_t sent[FAKE_KVM_REGIONS][1000];
	struct ramlift_error error;
};

static void on_mark(void *context, unsigned region, uint64_t first_page, uint64_t n)
{
	struct tracker *tracker = context;

	for (uint64_t i = first_page; i < first_page + n; i++)
		tracker->sent[region][i] = tracker->kvm.memory[region][i];
}

static int make_ring(struct tracker *tracker)
{
	struct fake_kvm *kvm = &tracker->kvm;
	struct ramlift_dirty_ring_config config = {
		.vm_fd = kvm->vm_fd,
		.vcpu_fds = kvm->vcpu_fds,
		.n_vcpus = kvm->n_vcpus,
		.entries = ENTRIES,
		.regions = kvm->regions,
		.slots = kvm->slots,
		.n_regions = FAKE_KVM_REGIONS,
	};
	int ret = ramlift_dirty_ring_enable(kvm->vm_fd, ENTRIES, &tracker->error);

	if (!ret)
		ret = ramlift_dirty_ring_new(&config, &tracker->ring, &tracker->error);
	tracker->ops = ramlift_dirty_ring_ops();
	tracker->source = tracker->ring;
	return ret;
}

static int make_log(struct tracker *tracker)
{
	struct fake_kvm *kvm = &tracker->kvm;
	struct ramlift_dirty_log_config config = {
		.vm_fd = kvm->vm_fd,
		.regions = kvm->regions,
		.slots = kvm->slots,
		.n_regions = FAKE_KVM_REGIONS,
	};
	int ret = ramlift_dirty_log_new(&config, &tracker->log, &tracker->error);

	tracker->ops = ramlift_dirty_log_ops();
	tracker->source = tracker->log;
	return ret;
}

static int write_and_harvest(struct tracker *tracker)
{
	int ret = 0;

	for (uint64_t round = 1; round < 5 && !ret; round++) {
		for (uint64_t page = 0; page < 40; page++)
			fake_kvm_write(&tracker->kvm, page % 2, page % FAKE_KVM_REGIONS,
				       page * round, round);
		ret = tracker->ops->harvest(tracker->source, &tracker->error);
	}
	return ret;
}

static void assert_nothing_lost(const struct tracker *tracker)
{
	for (unsigned region = 0; region < FAKE_KVM_REGIONS; region++) {
		for (uint64_t page = 0; page < n_pages[region]; page++)
			assert_int_equal(tracker->sent[region][page],
					 tracker->kvm.memory[region][page]);
	}
}

/* From enabling it to the end of a migration. */
static int track(struct tracker *tracker, enum kind kind)
{
	int ret = kind == RING ? make_ring(tracker) : make_log(tracker);

	if (ret)
		return ret;
	ret = tracker->ops->start(tracker->source, &tracker->sink, &tracker->error);
	if (ret) {
		assert_false(tracker->kvm.tracked[0] || tracker->kvm.tracked[1]);
		return ret;
	}
	ret = write_and_harvest(tracker);
	if (!ret)
		assert_nothing_lost(tracker);
	tracker->ops->stop(tracker->source);
	return ret;
}

static unsigned fail_every_ioctl_of(enum kind kind)
{
	static struct tracker tracker;
	unsigned nth = 0;

	do {
		bool tracked;
		int ret;

		memset(&tracker, 0, sizeof(tracker));
		fake_kvm_init(&tracker.kvm, 2, ENTRIES, n_pages);
		tracker.kvm.has_manual_protect = kind == LOG_MANUAL;
		fake_sink_init(&tracker.sink, n_pages, FAKE_KVM_REGIONS);
		tracker.sink.on_mark = on_mark;
		tracker.sink.context = &tracker;
		fail_nth(++nth);
		ret = track(&tracker, kind);
		if (!injected.failed)
			assert_int_equal(ret, 0);
		if (ret)
			assert_int_equal(tracker.error.code, ret);
		tracked = tracker.kvm.tracked[0] || tracker.kvm.tracked[1];
		/* What KVM will not turn off nobody can. */
		assert_true(!tracked || injected.request == KVM_SET_USER_MEMORY_REGION);
		ramlift_dirty_ring_free(tracker.ring);
		ramlift_dirty_log_free(tracker.log);
		fake_sink_fini(&tracker.sink);
		fake_kvm_fini(&tracker.kvm);
	} while (injected.failed);
	print_message("%u ioctls can fail\n", nth - 1);
	return nth - 1;
}

static void test_dirty_tracking(void **state)
{
	(void)state;
	assert_true(fail_every_ioctl_of(RING) >= 8);
	assert_true(fail_every_ioctl_of(LOG) >= 8);
	assert_true(fail_every_ioctl_of(LOG_MANUAL) >= 12);
}

/* ---- a vCPU's state ---- */

/* What is asked for and may be missing: extensions, the TSC's frequency, the hint to the guest. */
static bool is_optional(unsigned long request)
{
	return request == KVM_CHECK_EXTENSION || request == KVM_GET_TSC_KHZ ||
	       request == KVM_KVMCLOCK_CTRL;
}

static int save(const struct vcpu_state_host *host, void **state, size_t *state_bytes,
		struct ramlift_error *error)
{
	struct state_writer writer;
	int ret;

	state_writer_init(&writer, 1);
	ret = vm_clock_save(injected.fd, &writer, error);
	if (!ret)
		ret = vcpu_state_save(host, injected.fd, 0, &writer, error);
	if (!ret)
		return state_writer_finish(&writer, state, state_bytes);
	state_writer_abandon(&writer);
	return ret;
}

static int load(const struct vcpu_state_host *host, const void *state, size_t state_bytes,
		struct ramlift_error *error)
{
	struct state_view view;
	int ret = state_view_init(&view, state, state_bytes, 1, error);

	if (ret)
		return ret;
	ret = vcpu_state_load(host, injected.fd, &view.vcpus[0], error);
	if (!ret)
		ret = vm_clock_load(injected.fd, &view, error);
	state_view_fini(&view);
	return ret;
}

static int save_and_load(struct ramlift_error *error)
{
	struct vcpu_state_host host;
	size_t state_bytes;
	void *state;
	int ret = vcpu_state_host_init(&host, injected.fd, injected.fd, error);

	if (ret)
		return ret;
	ret = save(&host, &state, &state_bytes, error);
	if (!ret) {
		ret = load(&host, state, state_bytes, error);
		free(state);
	}
	vcpu_state_host_fini(&host);
	return ret;
}

static void test_vcpu_state(void **unused)
{
	unsigned nth = 0;

	(void)unused;
	injected.fd = eventfd(0, EFD_CLOEXEC);
	do {
		struct ramlift_error error = { 0 };
		int ret;

		fail_nth(++nth);
		ret = save_and_load(&error);
		if (!injected.failed || is_optional(injected.request)) {
			assert_int_equal(ret, 0);
			continue;
		}
		assert_int_equal(ret, -EIO);
		assert_int_equal(error.code, -EIO);
		assert_true(error.text[0]);
	} while (injected.failed);
	print_message("%u ioctls can fail\n", nth - 1);
	assert_true(nth > 20);
	close(injected.fd);
	injected.fd = -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dirty_tracking),
		cmocka_unit_test(test_vcpu_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
