/* SPDX-License-Identifier: Apache-2.0 */
/* The machine as the engine sees it: machine_describe() and machine_guest_ops. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "kvm/vmm/machine_description.h"
#include "kvm/vmm/machine_numa.h"
#include "kvm/vmm/machine_private.h"

int machine_describe(const struct machine *machine, void **description, size_t *description_bytes,
		     struct ramlift_error *error)
{
	struct machine_description *made = calloc(1, sizeof(*made));
	int ret = -ENOMEM;

	if (made) {
		made->config = machine->config;
		made->tsc_khz = machine->tsc_khz;
		made->cpuid = machine->cpuid;
		ret = machine_description_encode(made, description, description_bytes);
		free(made);
	}
	return ret ? error_set(error, ret, "no memory for the machine's description") : 0;
}

/* The regions that the engine was told of must be those that the description means. */
static int check_regions(const struct machine_config *config,
			 const struct ramlift_guest_offer *offer, struct ramlift_error *error)
{
	struct ramlift_region planned[MACHINE_MAX_REGIONS];
	unsigned n = machine_memory_plan(config, planned);

	if (offer->n_regions != n)
		return error_set(error, -EINVAL,
				 "the guest is offered with %u regions, its description has %u",
				 offer->n_regions, n);
	for (unsigned i = 0; i < n; i++) {
		if (offer->regions[i].gpa != planned[i].gpa ||
		    offer->regions[i].size_bytes != planned[i].size_bytes ||
		    offer->regions[i].page_size_bytes != planned[i].page_size_bytes)
			return error_set(error, -EINVAL,
					 "region %u of the guest is not what its description says",
					 i);
	}
	return 0;
}

static int op_create(void *guest, const struct ramlift_guest_offer *offer,
		     struct ramlift_region *regions, struct ramlift_error *error)
{
	struct machine_place *place = guest;
	struct machine_description *description;
	struct machine *machine = NULL;
	int ret;

	if (place->machine)
		return error_set(error, -EEXIST, "a guest, %s, is here already", place->name);
	description = calloc(1, sizeof(*description));
	if (!description)
		return error_set(error, -ENOMEM, "no memory for the machine's description");
	ret = machine_description_decode(offer->machine, offer->machine_bytes, description, error);
	if (!ret)
		ret = machine_config_check(&description->config, error);
	if (!ret)
		ret = check_regions(&description->config, offer, error);
	if (!ret)
		ret = machine_numa_translate(&description->config, &place->numa_map, error);
	if (!ret)
		ret = machine_make(&description->config, &description->cpuid, description->tsc_khz,
				   &machine, error);
	free(description);
	if (ret)
		return ret;
	for (unsigned i = 0; i < machine->memory.n_regions; i++)
		regions[i] = machine->memory.regions[i];
	place->machine = machine;
	return 0;
}

static void op_discard(void *guest)
{
	struct machine_place *place = guest;

	machine_free(place->machine);
	place->machine = NULL;
}

static int op_pause(void *guest, struct ramlift_error *error)
{
	return machine_pause(((struct machine_place *)guest)->machine, error);
}

static int op_resume(void *guest, struct ramlift_error *error)
{
	return machine_resume(((struct machine_place *)guest)->machine, error);
}

/* The state of all vCPUs, saved or loaded by their own threads; each has a place of its own. */
struct state_task {
	struct machine *machine;
	const struct state_view *view;		      /* loading */
	struct state_writer parts[MACHINE_MAX_VCPUS]; /* saving */
	struct ramlift_error errors[MACHINE_MAX_VCPUS];
	int ret[MACHINE_MAX_VCPUS];
};

static void save_vcpu(void *context, unsigned vcpu)
{
	struct state_task *task = context;
	struct machine *machine = task->machine;

	state_writer_init(&task->parts[vcpu], machine->vcpus.n);
	task->ret[vcpu] = vcpu_state_save(&machine->state_host, machine->vcpus.list[vcpu].fd, vcpu,
					  &task->parts[vcpu], &task->errors[vcpu]);
}

static void load_vcpu(void *context, unsigned vcpu)
{
	struct state_task *task = context;
	struct machine *machine = task->machine;

	task->ret[vcpu] = vcpu_state_load(&machine->state_host, machine->vcpus.list[vcpu].fd,
					  &task->view->vcpus[vcpu], &task->errors[vcpu]);
}

/* What the first vCPU that failed said; 0 when none did. */
static int first_failure(const struct state_task *task, struct ramlift_error *error)
{
	for (unsigned i = 0; i < task->machine->vcpus.n; i++) {
		if (task->ret[i])
			return error_set(error, task->ret[i], "%s", task->errors[i].text);
	}
	return 0;
}

static int op_save_state(void *guest, void **state, size_t *state_bytes,
			 struct ramlift_error *error)
{
	struct machine *machine = ((struct machine_place *)guest)->machine;
	struct state_task task = { .machine = machine };
	struct state_writer writer;
	int ret;

	vcpus_each(&machine->vcpus, save_vcpu, &task);
	state_writer_init(&writer, machine->vcpus.n);
	for (unsigned i = 0; i < machine->vcpus.n; i++)
		state_writer_join(&writer, &task.parts[i]);
	ret = first_failure(&task, error);
	if (!ret)
		ret = vm_clock_save(machine->vm_fd, &writer, error);
	if (ret) {
		state_writer_abandon(&writer);
		return ret;
	}
	ret = state_writer_finish(&writer, state, state_bytes);
	return ret ? error_set(error, ret, "no memory for the guest's state") : 0;
}

static int op_load_state(void *guest, const void *state, size_t state_bytes,
			 struct ramlift_error *error)
{
	struct machine *machine = ((struct machine_place *)guest)->machine;
	struct state_task task = { .machine = machine };
	struct state_view view;
	int ret = state_view_init(&view, state, state_bytes, machine->vcpus.n, error);

	if (ret)
		return ret;
	task.view = &view;
	vcpus_each(&machine->vcpus, load_vcpu, &task);
	ret = first_failure(&task, error);
	if (!ret)
		ret = vm_clock_load(machine->vm_fd, &view, error);
	state_view_fini(&view);
	return ret;
}

const struct ramlift_guest_ops machine_guest_ops = {
	.create = op_create,
	.discard = op_discard,
	.pause = op_pause,
	.resume = op_resume,
	.save_state = op_save_state,
	.load_state = op_load_state,
};
