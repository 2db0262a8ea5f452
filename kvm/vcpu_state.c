/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU state by ioctls. The order matters; api.rst and KVM's sources give the reasons:
 *
 * Saving: the MP state first, as KVM_GET_MP_STATE may take in a pending INIT or SIPI and so change
 * what follows; the pending events last, as other calls may queue or drop some.
 *
 * Loading: the TSC's frequency before its value (an MSR), which is why vCPUs are made with it;
 * special registers before MSRs (EFER and the APIC base have checks against them) and before the
 * local APIC (its mode is in the APIC base); MSRs before the local APIC, except IA32_TSC_DEADLINE,
 * which counts only once the APIC's timer is in that mode; pending events after all that may queue
 * or drop some.
 */
#include "kvm/vcpu_state.h"

#include <endian.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/error.h"

#define MSR_IA32_TSC	      0x10u
#define MSR_IA32_TSC_ADJUST   0x3bu
#define MSR_IA32_TSC_DEADLINE 0x6e0u
#define MSR_HV_VP_RUNTIME     0x40000010u
#define MSR_HV_TIME_REF_COUNT 0x40000020u

#define MOST_MSRS 255u /* in a call: KVM's MAX_IO_MSRS, 256, is refused already */

/* State of the guest that KVM keeps and does not list: the MTRRs. */
static const struct {
	uint32_t first, n;
} unlisted_msrs[] = {
	{ 0x200, 16 },				   /* base and mask of the variable ranges */
	{ 0x250, 1 },				   /* the fixed ranges */
	{ 0x258, 2 },  { 0x268, 8 }, { 0x2ff, 1 }, /* default type, and whether they count */
};
#define MOST_UNLISTED 32u

static void add_unlisted_msrs(struct kvm_msr_list *list)
{
	for (unsigned i = 0; i < sizeof(unlisted_msrs) / sizeof(unlisted_msrs[0]); i++) {
		for (uint32_t j = 0; j < unlisted_msrs[i].n; j++)
			list->indices[list->nmsrs++] = unlisted_msrs[i].first + j;
	}
}

int vcpu_state_host_init(struct vcpu_state_host *host, int kvm_fd, int vm_fd,
			 struct ramlift_error *error)
{
	struct kvm_msr_list count = { .nmsrs = 0 };
	struct kvm_msr_list *list;
	int xsave_bytes = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	int ret;

	/* Fails with E2BIG and says how many there are. */
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &count) && errno != E2BIG) {
		ret = -errno;
		return error_set(error, ret, "cannot list this host's MSRs: %s", strerror(-ret));
	}
	list = calloc(1, sizeof(*list) + (count.nmsrs + MOST_UNLISTED) * sizeof(list->indices[0]));
	if (!list)
		return error_set(error, -ENOMEM, "no memory for the list of MSRs");
	list->nmsrs = count.nmsrs;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, list)) {
		ret = -errno;
		free(list);
		return error_set(error, ret, "cannot list this host's MSRs: %s", strerror(-ret));
	}
	add_unlisted_msrs(list);
	*host = (struct vcpu_state_host){
		.msrs = list,
		.xsave2 = xsave_bytes > 0,
		.xsave_bytes = xsave_bytes > (int)sizeof(struct kvm_xsave)
				       ? (size_t)xsave_bytes
				       : sizeof(struct kvm_xsave),
		.sregs2 = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0,
	};
	return 0;
}

void vcpu_state_host_fini(struct vcpu_state_host *host)
{
	free(host->msrs);
	*host = (struct vcpu_state_host){ 0 };
}

static int load_failed(int ret, const char *what, struct ramlift_error *error)
{
	return error_set(error, ret, "this host's KVM does not take the guest's %s: %s", what,
			 strerror(-ret));
}

/* Get or set the first of n MSRs, as many as one call takes; how many KVM did, before the first
 * that it refuses, or -errno. *asked: how many it was asked for. */
static int access_msrs(int vcpu_fd, unsigned long request, struct kvm_msr_entry *entries,
		       unsigned n, unsigned *asked)
{
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + MOST_MSRS * sizeof(*entries));
	int done;

	if (!msrs)
		return -ENOMEM;
	*asked = msrs->nmsrs = n < MOST_MSRS ? n : MOST_MSRS;
	memcpy(msrs->entries, entries, *asked * sizeof(*entries));
	done = ioctl(vcpu_fd, request, msrs);
	if (done < 0)
		done = -errno;
	else
		memcpy(entries, msrs->entries, (unsigned)done * sizeof(*entries));
	free(msrs);
	return done;
}

/* Those that KVM does not read are stepped over; *n: how many are in entries[] then. */
static int get_msrs(int vcpu_fd, struct kvm_msr_entry *entries, unsigned *n)
{
	unsigned at = 0, kept = 0, asked;

	while (at < *n) {
		int done = access_msrs(vcpu_fd, KVM_GET_MSRS, entries + at, *n - at, &asked);

		if (done < 0)
			return done;
		memmove(entries + kept, entries + at, (unsigned)done * sizeof(*entries));
		kept += (unsigned)done;
		at += (unsigned)done + ((unsigned)done < asked);
	}
	*n = kept;
	return 0;
}

/* Whether the guest is none the wiser though KVM did not set this MSR. */
static bool may_be_refused(int vcpu_fd, const struct kvm_msr_entry *wanted)
{
	struct kvm_msr_entry have = { .index = wanted->index };
	unsigned asked;

	switch (wanted->index) {
	case MSR_IA32_TSC:
	case MSR_IA32_TSC_ADJUST:
	case MSR_HV_VP_RUNTIME:
	case MSR_HV_TIME_REF_COUNT:
		return true; /* they run: what is read back is another value */
	default:
		break;
	}
	if (access_msrs(vcpu_fd, KVM_GET_MSRS, &have, 1, &asked) == 1)
		return have.data == wanted->data;
	return wanted->data == 0;
}

static int set_msrs(int vcpu_fd, struct kvm_msr_entry *entries, unsigned n,
		    struct ramlift_error *error)
{
	unsigned at = 0, asked;

	while (at < n) {
		int done = access_msrs(vcpu_fd, KVM_SET_MSRS, entries + at, n - at, &asked);

		if (done < 0)
			return load_failed(done, "MSRs", error);
		at += (unsigned)done;
		if ((unsigned)done == asked)
			continue;
		if (!may_be_refused(vcpu_fd, &entries[at]))
			return error_set(error, -EINVAL,
					 "this host's KVM does not set MSR 0x%x to the guest's "
					 "0x%llx: start the guest on the older of the two hosts",
					 entries[at].index, (unsigned long long)entries[at].data);
		at++;
	}
	return 0;
}

static int save_msrs(const struct vcpu_state_host *host, int vcpu_fd, unsigned vcpu,
		     struct state_writer *writer)
{
	unsigned n = host->msrs->nmsrs;
	struct kvm_msr_entry *entries = calloc(n ? n : 1, sizeof(*entries));
	int ret;

	if (!entries)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		entries[i].index = host->msrs->indices[i];
	ret = get_msrs(vcpu_fd, entries, &n);
	if (!ret)
		state_writer_add(writer, STATE_MSRS, vcpu, entries, n * sizeof(*entries));
	free(entries);
	return ret;
}

/* All MSRs but one, or only that one. */
static int load_msrs(int vcpu_fd, const struct state_section *section, bool only_deadline,
		     struct ramlift_error *error)
{
	unsigned n = 0, n_all = (unsigned)(section->length / sizeof(struct kvm_msr_entry));
	struct kvm_msr_entry *entries = calloc(n_all + 1, sizeof(*entries));
	int ret;

	if (!entries)
		return load_failed(-ENOMEM, "MSRs", error);
	for (unsigned i = 0; i < n_all; i++) {
		memcpy(&entries[n], section->bytes + i * sizeof(*entries), sizeof(*entries));
		entries[n].reserved = 0;
		n += (entries[n].index == MSR_IA32_TSC_DEADLINE) == only_deadline;
	}
	ret = set_msrs(vcpu_fd, entries, n, error);
	free(entries);
	return ret;
}

static int save_xsave(const struct vcpu_state_host *host, int vcpu_fd, unsigned vcpu,
		      struct state_writer *writer)
{
	void *area = calloc(1, host->xsave_bytes);
	int ret = 0;

	if (!area)
		return -ENOMEM;
	if (ioctl(vcpu_fd, host->xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area))
		ret = -errno;
	else
		state_writer_add(writer, STATE_XSAVE, vcpu, area, host->xsave_bytes);
	free(area);
	return ret;
}

static int load_xsave(const struct vcpu_state_host *host, int vcpu_fd,
		      const struct state_section *section)
{
	size_t common = section->length < host->xsave_bytes ? section->length : host->xsave_bytes;
	void *area;
	int ret;

	/* Registers that this host does not have may only be in their initial state. */
	for (size_t i = common; i < section->length; i++) {
		if (section->bytes[i])
			return -E2BIG;
	}
	area = calloc(1, host->xsave_bytes);
	if (!area)
		return -ENOMEM;
	memcpy(area, section->bytes, common);
	ret = ioctl(vcpu_fd, KVM_SET_XSAVE, area) ? -errno : 0;
	free(area);
	return ret;
}

/* The sections that one ioctl each gets and sets, as they are in the state. */
union simple {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_sregs2 sregs2;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
};

static int save_simple(int vcpu_fd, unsigned vcpu, struct state_writer *writer,
		       enum state_kind kind, unsigned long request, size_t bytes)
{
	union simple value;

	memset(&value, 0, sizeof(value));
	if (ioctl(vcpu_fd, request, &value))
		return -errno;
	state_writer_add(writer, kind, vcpu, &value, bytes);
	return 0;
}

static int load_simple(int vcpu_fd, const struct state_vcpu *state, enum state_kind kind,
		       unsigned long request)
{
	const struct state_section *section = &state->sections[kind];
	union simple value;

	if (!section->bytes)
		return 0;
	memset(&value, 0, sizeof(value));
	memcpy(&value, section->bytes, section->length);
	return ioctl(vcpu_fd, request, &value) ? -errno : 0;
}

static int save_failed(int ret, const char *what, unsigned vcpu, struct ramlift_error *error)
{
	return error_set(error, ret, "cannot save the %s of vCPU %u: %s", what, vcpu,
			 strerror(-ret));
}

int vcpu_state_save(const struct vcpu_state_host *host, int vcpu_fd, unsigned vcpu,
		    struct state_writer *writer, struct ramlift_error *error)
{
	const struct {
		const char *what;
		enum state_kind kind;
		unsigned long request;
		size_t bytes;
		bool optional;
	} simple[] = {
		{ "MP state", STATE_MP_STATE, KVM_GET_MP_STATE, sizeof(struct kvm_mp_state),
		  false },
		{ "registers", STATE_REGS, KVM_GET_REGS, sizeof(struct kvm_regs), false },
		{ "special registers", host->sregs2 ? STATE_SREGS2 : STATE_SREGS,
		  host->sregs2 ? KVM_GET_SREGS2 : KVM_GET_SREGS,
		  host->sregs2 ? sizeof(struct kvm_sregs2) : sizeof(struct kvm_sregs), false },
		{ "extended control registers", STATE_XCRS, KVM_GET_XCRS, sizeof(struct kvm_xcrs),
		  true }, /* not without XSAVE */
		{ "local APIC", STATE_LAPIC, KVM_GET_LAPIC, sizeof(struct kvm_lapic_state),
		  true }, /* not without an irqchip in the kernel */
		{ "debug registers", STATE_DEBUGREGS, KVM_GET_DEBUGREGS,
		  sizeof(struct kvm_debugregs), false },
	};
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0), ret;
	uint32_t tsc_khz = htole32((uint32_t)khz);

	for (unsigned i = 0; i < sizeof(simple) / sizeof(simple[0]); i++) {
		ret = save_simple(vcpu_fd, vcpu, writer, simple[i].kind, simple[i].request,
				  simple[i].bytes);
		if (ret && !(simple[i].optional && ret == -EINVAL))
			return save_failed(ret, simple[i].what, vcpu, error);
	}
	if (khz > 0)
		state_writer_add(writer, STATE_TSC_KHZ, vcpu, &tsc_khz, sizeof(tsc_khz));
	ret = save_xsave(host, vcpu_fd, vcpu, writer);
	if (ret)
		return save_failed(ret, "XSAVE area", vcpu, error);
	ret = save_msrs(host, vcpu_fd, vcpu, writer);
	if (ret)
		return save_failed(ret, "MSRs", vcpu, error);
	ret = save_simple(vcpu_fd, vcpu, writer, STATE_EVENTS, KVM_GET_VCPU_EVENTS,
			  sizeof(struct kvm_vcpu_events));
	return ret ? save_failed(ret, "pending events", vcpu, error) : 0;
}

int vcpu_state_load(const struct vcpu_state_host *host, int vcpu_fd, const struct state_vcpu *state,
		    struct ramlift_error *error)
{
	const struct {
		const char *what;
		enum state_kind kind;
		unsigned long request;
	} after_msrs[] = {
		{ "local APIC", STATE_LAPIC, KVM_SET_LAPIC },
		{ "debug registers", STATE_DEBUGREGS, KVM_SET_DEBUGREGS },
		{ "MP state", STATE_MP_STATE, KVM_SET_MP_STATE },
		{ "pending events", STATE_EVENTS, KVM_SET_VCPU_EVENTS },
	};
	const struct state_section *msrs = &state->sections[STATE_MSRS];
	int ret;

	ret = load_simple(vcpu_fd, state, STATE_REGS, KVM_SET_REGS);
	if (ret)
		return load_failed(ret, "registers", error);
	ret = load_simple(vcpu_fd, state, STATE_SREGS, KVM_SET_SREGS);
	if (!ret)
		ret = load_simple(vcpu_fd, state, STATE_SREGS2, KVM_SET_SREGS2);
	if (ret)
		return load_failed(ret, "special registers", error);
	ret = load_xsave(host, vcpu_fd, &state->sections[STATE_XSAVE]);
	if (ret)
		return load_failed(ret, "XSAVE area", error);
	ret = load_simple(vcpu_fd, state, STATE_XCRS, KVM_SET_XCRS);
	if (ret)
		return load_failed(ret, "extended control registers", error);
	ret = load_msrs(vcpu_fd, msrs, false, error);
	if (ret)
		return ret;
	for (unsigned i = 0; i < sizeof(after_msrs) / sizeof(after_msrs[0]); i++) {
		ret = load_simple(vcpu_fd, state, after_msrs[i].kind, after_msrs[i].request);
		if (ret)
			return load_failed(ret, after_msrs[i].what, error);
	}
	ret = load_msrs(vcpu_fd, msrs, true, error);
	if (ret)
		return ret;
	/* Keeps the guest's watchdogs quiet; fails where it has no kvmclock. */
	(void)ioctl(vcpu_fd, KVM_KVMCLOCK_CTRL, 0);
	return 0;
}

int vm_clock_save(int vm_fd, struct state_writer *writer, struct ramlift_error *error)
{
	struct kvm_clock_data clock = { 0 };

	if (ioctl(vm_fd, KVM_GET_CLOCK, &clock)) {
		int ret = -errno;

		return error_set(error, ret, "cannot save the guest's clock: KVM_GET_CLOCK: %s",
				 strerror(-ret));
	}
	state_writer_add(writer, STATE_CLOCK, 0, &clock, sizeof(clock));
	return 0;
}

int vm_clock_load(int vm_fd, const struct state_view *view, struct ramlift_error *error)
{
	struct kvm_clock_data saved, clock = { 0 };

	if (!view->clock.bytes)
		return 0;
	memcpy(&saved, view->clock.bytes, sizeof(saved));
	clock.clock = saved.clock; /* without flags: go on from here */
	if (ioctl(vm_fd, KVM_SET_CLOCK, &clock)) {
		int ret = -errno;

		return error_set(error, ret, "cannot set the guest's clock: KVM_SET_CLOCK: %s",
				 strerror(-ret));
	}
	return 0;
}
