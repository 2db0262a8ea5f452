/* SPDX-License-Identifier: Apache-2.0 */
/* What a request says of a migration, checked, for anybody of this user may have written it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/privileges.h"
#include "kvm/vmm/server_private.h"

/* A number of the request: absent leaves the default, out of bounds is refused. */
static int take_number(const json_t *request, const char *key, uint64_t minimum, uint64_t maximum,
		       uint64_t *number, struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);
	json_int_t integer = json_integer_value(value);

	if (!value)
		return 0;
	if (!json_is_integer(value) || integer < 0 || (uint64_t)integer < minimum ||
	    (uint64_t)integer > maximum)
		return error_set(error, -EINVAL, "%s must be a number from %llu to %llu", key,
				 (unsigned long long)minimum, (unsigned long long)maximum);
	*number = (uint64_t)integer;
	return 0;
}

/* A word of the request, NULL where it is absent. */
static int take_text(const json_t *request, const char *key, const char **text,
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);

	if (value && !json_is_string(value))
		return error_set(error, -EINVAL, "%s must be a string", key);
	*text = json_string_value(value);
	return 0;
}

/* false where it is absent. */
static int take_flag(const json_t *request, const char *key, bool *flag,
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);

	if (value && !json_is_boolean(value))
		return error_set(error, -EINVAL, "%s must be true or false", key);
	*flag = json_is_true(value);
	return 0;
}

/* Which devices, and what they may pin. */
static int take_rails(const json_t *request, struct migration *migration,
		      struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	const char *rails = NULL, *pin = NULL;
	int ret;

	ret = take_text(request, "rails", &rails, error);
	if (!ret && rails)
		ret = option_rails(rails, &migration->rails, error);
	if (!ret)
		ret = take_text(request, "pin", &pin, error);
	if (!ret && pin)
		ret = option_pin(pin, &config->pin, &config->pin_budget_bytes, error);
	if (!ret)
		ret = take_flag(request, "on_demand_paging", &config->on_demand_paging, error);
	config->rails = migration->rails.list;
	config->n_rails = migration->rails.n;
	return ret;
}

static int take_choices(const json_t *request, struct migration *migration,
			struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	enum option_transport choice = TRANSPORT_AUTO;
	const char *divergence = NULL, *transport = NULL;
	int ret;

	ret = take_text(request, "transport", &transport, error);
	if (!ret && transport)
		ret = option_transport(transport, &choice, error);
	if (!ret)
		ret = take_text(request, "on_divergence", &divergence, error);
	if (!ret && divergence)
		ret = option_divergence(divergence, &config->on_divergence, error);
	if (!ret)
		ret = take_flag(request, "verify", &config->verify, error);
	if (ret)
		return ret;
	config->transports = migration->transports;
	config->n_transports = option_transport_list(choice, migration->transports);
	return 0;
}

static int take_address(const json_t *request, struct migration *migration,
			struct ramlift_error *error)
{
	const char *to = NULL;
	int ret;

	ret = take_text(request, "to", &to, error);
	if (!ret)
		ret = option_address("--to", to ? to : "", false, error);
	if (ret)
		return ret;
	migration->to = strdup(to);
	if (!migration->to)
		return error_set(error, -ENOMEM, "no memory for a migration");
	migration->config.to = migration->to;
	return 0;
}

static int take_numbers(const json_t *request, struct ramlift_source_config *config,
			struct ramlift_error *error)
{
	uint64_t lanes = config->lanes_per_rail;
	int ret;

	ret = take_number(request, "lanes_per_rail", 1, RAMLIFT_MAX_LANES, &lanes, error);
	if (!ret)
		ret = take_number(request, "max_downtime_ns", 1, 3600 * NS_PER_S,
				  &config->max_downtime_ns, error);
	if (!ret)
		ret = take_number(request, "timeout_ns", 1, 366ull * 86400 * NS_PER_S,
				  &config->max_total_ns, error);
	if (!ret)
		ret = take_number(request, "bandwidth_bytes_per_s", 1, OPTION_MAX_RATE_BYTES,
				  &config->bandwidth_bytes_per_s, error);
	config->lanes_per_rail = (unsigned)lanes;
	return ret;
}

static int take_security(const json_t *request, struct migration *migration,
			 struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	const char *command = NULL;
	int ret;

	ret = option_security_take(&migration->security, request, error);
	if (!ret)
		ret = take_text(request, "fence_command", &command, error);
	if (ret)
		return ret;
	option_security_apply(&migration->security, &config->security, &config->timeouts);
	if (config->security.tls_dir || config->security.psk_file)
		privileges_forbid_dumps();
	if (!command)
		return 0;
	migration->fence_command = strdup(command);
	return migration->fence_command ? 0
					: error_set(error, -ENOMEM, "no memory for a migration");
}

static int fill_in_guest(struct server *server, struct migration *migration,
			 struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	int ret;

	ret = machine_describe(server->machine, &migration->description, &config->machine_bytes,
			       error);
	if (ret)
		return ret;
	config->guest_name = server->place.name;
	config->guest_ops = &machine_guest_ops;
	config->guest = &server->place;
	config->dirty_source_ops = machine_dirty_source(server->machine, &config->dirty_source);
	config->regions = machine_regions(server->machine, &config->n_regions);
	config->machine = migration->description;
	config->state_dir = server->state_dir;
	return 0;
}

int migration_prepare(struct server *server, const json_t *request, struct migration *migration,
		      struct ramlift_error *error)
{
	int ret;

	ramlift_source_config_init(&migration->config);
	ret = take_address(request, migration, error);
	if (!ret)
		ret = take_choices(request, migration, error);
	if (!ret)
		ret = take_rails(request, migration, error);
	if (!ret)
		ret = take_numbers(request, &migration->config, error);
	if (!ret)
		ret = take_security(request, migration, error);
	if (!ret)
		ret = fill_in_guest(server, migration, error);
	return ret;
}
