/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's side. A QEMU waits; its memory is what the lanes write. It gets the rest of the
 * source QEMU's stream as it comes in, and loads its devices from it once the lanes are fenced, for
 * the source sends their state only then. It is told not to run the guest by itself: that is for
 * COMMIT to say (rule 7).
 */
#include "kvm/qemu/destination.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/carried.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/control.h"
#include "kvm/qemu/describe.h"
#include "kvm/qemu/guest_ram.h"
#include "kvm/qemu/incoming_socket.h"
#include "kvm/qemu/no_state.h"
#include "kvm/qemu/outlet.h"

struct qemu_destination {
	struct qemu_destination_config config;
	char name[RAMLIFT_MAX_NAME];
	struct qmp *qmp;
	struct qemu_guest *guest;
	struct guest_ram ram; /* in the order of the source's blocks, while there is a session */
	struct incoming_socket socket;
	struct ramlift_destination *session;
	struct outlet *outlet; /* NULL until QEMU has been given something */
	unsigned n_multifd;
	bool runs;  /* the guest ran at the source */
	bool waits; /* QEMU has been told where its guest comes in */
	bool spent;
};

/* The offered regions are the description's blocks, in its order. */
static int map_blocks(struct qemu_destination *destination, const json_t *blocks,
		      const struct ramlift_guest_offer *offer, struct ramlift_error *error)
{
	int ret = 0;

	if (json_array_size(blocks) != offer->n_regions)
		return error_set(error, -EPROTO, "the source's blocks and regions differ");
	for (unsigned i = 0; !ret && i < offer->n_regions; i++) {
		const char *name =
			json_string_value(json_object_get(json_array_get(blocks, i), "name"));
		const struct qemu_block *block =
			name ? qemu_guest_block(destination->guest, name) : NULL;

		if (!block || block->size_bytes != offer->regions[i].size_bytes)
			return error_set(error, -EPROTO, "the source's blocks and regions differ");
		ret = guest_ram_add(&destination->ram, destination->guest->pid, &block->mapping,
				    error);
	}
	return ret;
}

static int take_description(struct qemu_destination *destination, const json_t *machine,
			    const struct ramlift_guest_offer *offer, struct ramlift_error *error)
{
	json_int_t n_multifd = json_integer_value(json_object_get(machine, "multifd"));
	int ret = qemu_check(machine, destination->guest, error);

	if (ret)
		return ret;
	if (n_multifd < 0 || n_multifd > RAMLIFT_MAX_LANES)
		return error_set(error, -EPROTO, "the source's number of multifd channels is none");
	destination->n_multifd = (unsigned)n_multifd;
	destination->runs = json_is_true(json_object_get(machine, "running"));
	return map_blocks(destination, json_object_get(machine, "blocks"), offer, error);
}

static int create(void *context, const struct ramlift_guest_offer *offer,
		  struct ramlift_region *regions, struct ramlift_error *error)
{
	struct qemu_destination *destination = context;
	json_t *machine = json_loadb(offer->machine, offer->machine_bytes, 0, NULL);
	int ret;

	snprintf(destination->name, sizeof(destination->name), "%s", offer->name);
	if (machine)
		ret = take_description(destination, machine, offer, error);
	else
		ret = error_set(error, -EPROTO,
				"what comes is not a QEMU guest: use 'ramlift receive' for a guest "
				"of 'ramlift run'");
	json_decref(machine);
	if (ret) {
		guest_ram_fini(&destination->ram);
		return ret;
	}
	guest_ram_give(&destination->ram, regions);
	return 0;
}

/* A QEMU that has a part of a guest, or all of it but the right to run it, is of no more use. */
static void discard(void *context)
{
	struct qemu_destination *destination = context;

	outlet_close(destination->outlet);
	destination->outlet = NULL;
	if (destination->waits) {
		qmp_call(destination->qmp, "quit", NULL, NULL, NULL);
		destination->spent = true;
	}
	guest_ram_fini(&destination->ram);
}

static int resume(void *context, struct ramlift_error *error)
{
	struct qemu_destination *destination = context;
	int ret;

	if (!destination->outlet)
		return error_set(error, -EPROTO, "the source committed a guest that never came");
	ret = destination->runs ? control_run(destination->qmp, error) : 0;
	/* QEMU has loaded all; the outlet's thread must be gone before the session's channel is. */
	outlet_close(destination->outlet);
	destination->outlet = NULL;
	return ret;
}

static const struct ramlift_guest_ops guest_ops = {
	.create = create,
	.discard = discard,
	.load_state = no_state_load,
	.resume = resume,
};

/* Only now, when there is something to give: until then the QEMU can
 * still wait for another guest. */
static int open_outlet(struct qemu_destination *destination, struct ramlift_error *error)
{
	int ret;

	ret = control_set_destination(destination->qmp, destination->n_multifd, error);
	if (!ret)
		ret = incoming_socket_init(&destination->socket, destination->guest->pid, error);
	if (!ret)
		ret = control_incoming(destination->qmp, destination->socket.address.sun_path,
				       error);
	if (ret)
		return ret;
	destination->waits = true;
	return outlet_open((struct sockaddr *)&destination->socket.address,
			   sizeof(destination->socket.address), destination->session,
			   &destination->outlet, error);
}

static int receive(void *context, unsigned stream, const void *bytes, size_t n_bytes,
		   struct ramlift_error *error)
{
	struct qemu_destination *destination = context;
	int ret = 0;

	if (!destination->outlet)
		ret = open_outlet(destination, error);
	if (!ret && stream > destination->n_multifd)
		ret = error_set(error, -EPROTO, "the source sends more streams than it announced");
	return ret ? ret : outlet_write(destination->outlet, stream, bytes, n_bytes, error);
}

static int clear(void *context, void *hva, uint64_t size_bytes, struct ramlift_error *error)
{
	const struct qemu_destination *destination = context;

	return guest_ram_clear(&destination->ram, hva, size_bytes, error);
}

static const struct carried_ops carried_ops = {
	.receive = receive,
	.clear = clear,
};

int qemu_destination_new(const struct qemu_destination_config *config,
			 struct qemu_destination **result, struct ramlift_error *error)
{
	struct qemu_destination *destination = calloc(1, sizeof(*destination));
	int ret;

	if (!destination)
		return error_set(error, -ENOMEM, "no memory for a session");
	destination->config = *config;
	destination->config.session.guest_ops = &guest_ops;
	destination->config.session.guest = destination;
	ret = qmp_open(config->qmp_path, &destination->qmp, error);
	if (!ret)
		ret = qemu_inspect(destination->qmp, config->pid, &destination->guest, error);
	if (!ret && strcmp(destination->guest->status, "inmigrate"))
		ret = error_set(error, -EBUSY,
				"this QEMU is in state '%s' and does not wait for a guest: start "
				"it with -incoming defer",
				destination->guest->status);
	if (!ret)
		ret = ramlift_destination_new(&destination->config.session, &destination->session,
					      error);
	if (ret) {
		qemu_destination_free(destination);
		return ret;
	}
	destination_carry(destination->session, &carried_ops, destination);
	*result = destination;
	return 0;
}

uint16_t qemu_destination_port(const struct qemu_destination *destination)
{
	return ramlift_destination_port(destination->session);
}

int qemu_destination_run(struct qemu_destination *destination, struct ramlift_error *error)
{
	int ret = ramlift_destination_run(destination->session, error);

	incoming_socket_fini(&destination->socket);
	return ret;
}

void qemu_destination_info(struct qemu_destination *destination, struct ramlift_session_info *info)
{
	ramlift_destination_info(destination->session, info);
}

void qemu_destination_stats(struct qemu_destination *destination, struct ramlift_stats *stats)
{
	ramlift_destination_stats(destination->session, stats);
}

bool qemu_destination_spent(const struct qemu_destination *destination)
{
	return destination->spent;
}

int qemu_destination_cancel(struct qemu_destination *destination)
{
	return ramlift_destination_cancel(destination->session);
}

const char *qemu_destination_guest(const struct qemu_destination *destination)
{
	return destination->name;
}

void qemu_destination_free(struct qemu_destination *destination)
{
	if (!destination)
		return;
	outlet_close(destination->outlet);
	ramlift_destination_free(destination->session);
	incoming_socket_fini(&destination->socket);
	guest_ram_fini(&destination->ram);
	qemu_guest_free(destination->guest);
	qmp_close(destination->qmp);
	free(destination);
}
