/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options. Own digits instead of strtoull(), which takes signs, spaces and overflows. */
#include "kvm/vmm/options.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"

static const char *const transport_words[TRANSPORT_COUNT] = {
	[TRANSPORT_AUTO] = "auto",
	[TRANSPORT_RDMA] = "rdma",
	[TRANSPORT_TCP] = "tcp",
};

static const char *const divergence_words[] = {
	[RAMLIFT_DIVERGENCE_THROTTLE] = "throttle",
	[RAMLIFT_DIVERGENCE_STOP] = "stop",
	[RAMLIFT_DIVERGENCE_ABORT] = "abort",
};

static const char *const pattern_words[] = {
	[WORKLOAD_UNIFORM] = "uniform",
	[WORKLOAD_SEQUENTIAL] = "sequential",
	[WORKLOAD_SKEWED] = "skewed",
};

#define N_ITEMS(array) (unsigned)(sizeof(array) / sizeof((array)[0]))

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 },
	{ "K", 1ull << 10 },
	{ "M", 1ull << 20 },
	{ "G", 1ull << 30 },
	{ "T", 1ull << 40 },
	{ "KiB", 1ull << 10 },
	{ "MiB", 1ull << 20 },
	{ "GiB", 1ull << 30 },
	{ "TiB", 1ull << 40 },
};

static const struct unit bit_units[] = {
	{ "Mbit", 1000ull * 1000 / 8 },
	{ "Gbit", 1000ull * 1000 * 1000 / 8 },
};

/* Digits at *text into *number; *text moves behind them. -EINVAL: none; -ERANGE: over maximum. */
static int take_digits(const char **text, uint64_t maximum, uint64_t *number)
{
	const char *at = *text;
	uint64_t value = 0;

	if (*at < '0' || *at > '9')
		return -EINVAL;
	for (; *at >= '0' && *at <= '9'; at++) {
		unsigned digit = (unsigned)(*at - '0');

		if (value > (maximum - digit) / 10)
			return -ERANGE;
		value = value * 10 + digit;
	}
	*text = at;
	*number = value;
	return 0;
}

static const struct unit *find_unit(const char *suffix, const struct unit *units, unsigned n_units)
{
	for (unsigned i = 0; i < n_units; i++) {
		if (!strcmp(suffix, units[i].suffix))
			return &units[i];
	}
	return NULL;
}

/* "1.5" and one of the units, at most maximum. */
static int take_scaled(const char *text, const struct unit *units, unsigned n_units,
		       uint64_t maximum, uint64_t *result)
{
	const struct unit *unit;
	uint64_t whole, part = 0, scale = 1;
	unsigned __int128 value;
	int ret;

	ret = take_digits(&text, maximum, &whole);
	if (ret)
		return ret;
	if (*text == '.') {
		const char *digits = ++text;

		ret = take_digits(&text, 999999999, &part);
		if (ret)
			return -EINVAL;
		if (text - digits > 9)
			return -EINVAL;
		for (; digits < text; digits++)
			scale *= 10;
	}
	unit = find_unit(text, units, n_units);
	if (!unit || (unit->factor == 1 && scale != 1))
		return -EINVAL;
	value = (unsigned __int128)whole * unit->factor +
		(unsigned __int128)part * unit->factor / scale;
	if (!value || value > maximum)
		return -ERANGE;
	*result = (uint64_t)value;
	return 0;
}

int option_size(const char *option, const char *text, uint64_t *bytes, struct ramlift_error *error)
{
	int ret = take_scaled(text, size_units, N_ITEMS(size_units), OPTION_MAX_SIZE_BYTES, bytes);

	if (ret == -ERANGE)
		return error_set(error, ret, "%s '%s' must be above 0 and at most 64T", option,
				 text);
	if (ret)
		return error_set(error, ret, "%s '%s' is not a size; write it like 256M or 1.5G",
				 option, text);
	return 0;
}

int option_rate(const char *option, const char *text, uint64_t *bytes_per_s,
		struct ramlift_error *error)
{
	int ret = take_scaled(text, size_units, N_ITEMS(size_units), OPTION_MAX_RATE_BYTES,
			      bytes_per_s);

	if (ret == -EINVAL)
		ret = take_scaled(text, bit_units, N_ITEMS(bit_units), OPTION_MAX_RATE_BYTES,
				  bytes_per_s);
	if (ret == -ERANGE)
		return error_set(error, ret, "%s '%s' must be above 0 and at most 1T a second",
				 option, text);
	if (ret)
		return error_set(error, ret,
				 "%s '%s' is not a rate; write bytes a second like 500M or 10G, "
				 "or bits like 10Gbit",
				 option, text);
	return 0;
}

int option_number(const char *option, const char *text, uint64_t minimum, uint64_t maximum,
		  uint64_t *number, struct ramlift_error *error)
{
	const char *at = text;
	uint64_t value;
	int ret;

	ret = take_digits(&at, UINT64_MAX, &value);
	if (!ret && *at)
		ret = -EINVAL;
	if (ret == -EINVAL)
		return error_set(error, ret, "%s '%s' is not a whole number", option, text);
	if (ret || value < minimum || value > maximum)
		return error_set(error, -ERANGE, "%s '%s' must be from %llu to %llu", option, text,
				 (unsigned long long)minimum, (unsigned long long)maximum);
	*number = value;
	return 0;
}

int option_word(const char *option, const char *text, const char *const *words, unsigned n_words,
		unsigned *index, struct ramlift_error *error)
{
	char list[128] = "";

	for (unsigned i = 0; i < n_words; i++) {
		if (!strcmp(text, words[i])) {
			*index = i;
			return 0;
		}
		strncat(list, i ? (i + 1 == n_words ? " or " : ", ") : "",
			sizeof(list) - strlen(list) - 1);
		strncat(list, words[i], sizeof(list) - strlen(list) - 1);
	}
	return error_set(error, -EINVAL, "%s '%s' must be %s", option, text, list);
}

/* One "key=value" of a workload; seen has a bit for each key. */
static int workload_item(char *item, struct workload *workload, unsigned *seen,
			 struct ramlift_error *error)
{
	static const char *const keys[] = { "hot", "rate", "pattern", "fill" };
	char *value = strchr(item, '=');
	unsigned key, pattern;
	uint64_t fill;
	int ret;

	if (!value)
		return error_set(error, -EINVAL,
				 "--workload '%s' has no value; write it like "
				 "hot=32M,rate=2000,pattern=uniform",
				 item);
	*value++ = '\0';
	ret = option_word("--workload key", item, keys, N_ITEMS(keys), &key, error);
	if (ret)
		return ret;
	if (*seen & 1u << key)
		return error_set(error, -EINVAL, "--workload names %s twice", item);
	*seen |= 1u << key;
	switch (key) {
	case 0:
		if (!strcmp(value, "0")) {
			workload->hot_bytes = 0;
			return 0;
		}
		return option_size("--workload hot", value, &workload->hot_bytes, error);
	case 1:
		return option_number("--workload rate", value, 0, 1000000000,
				     &workload->pages_per_second, error);
	case 3:
		ret = option_number("--workload fill", value, 1, 100, &fill, error);
		if (!ret)
			workload->fill_percent = (unsigned)fill;
		return ret;
	default:
		ret = option_word("--workload pattern", value, pattern_words,
				  N_ITEMS(pattern_words), &pattern, error);
		if (!ret)
			workload->pattern = (enum workload_pattern)pattern;
		return ret;
	}
}

int option_workload(const char *text, struct workload *workload, struct ramlift_error *error)
{
	struct workload result = *workload;
	char copy[128], *rest = copy, *item;
	unsigned seen = 0;
	int ret;

	if (strlen(text) >= sizeof(copy))
		return error_set(error, -EINVAL,
				 "--workload is too long; write it like "
				 "hot=32M,rate=2000,pattern=uniform");
	strcpy(copy, text);
	while ((item = strsep(&rest, ","))) {
		ret = workload_item(item, &result, &seen, error);
		if (ret)
			return ret;
	}
	*workload = result;
	return 0;
}

int option_address(const char *option, const char *text, bool any_port, struct ramlift_error *error)
{
	const char *colon = strrchr(text, ':');
	size_t host = colon ? (size_t)(colon - text) : 0;
	bool v6 = host > 2 && text[0] == '[' && text[host - 1] == ']';
	uint64_t port;

	if (!host || strlen(text) > 300 || (!v6 && memchr(text, ':', host)) ||
	    strpbrk(text, " \t\r\n") || (!v6 && strpbrk(text, "[]")))
		return error_set(error, -EINVAL,
				 "%s '%s' is not an address; write it like host:7440 or "
				 "[2001:db8::1]:7440",
				 option, text);
	return option_number(any_port ? "the port of --listen" : "the port of --to", colon + 1,
			     any_port ? 0 : 1, UINT16_MAX, &port, error);
}

int option_guest_name(const char *text, struct ramlift_error *error)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strnlen(text, RAMLIFT_MAX_NAME);

	/* The name may come from a peer: none of it goes into the sentence. */
	if (!length || length >= RAMLIFT_MAX_NAME || strspn(text, allowed) != length ||
	    text[0] == '.')
		return error_set(error, -EINVAL,
				 "a guest's name is 1 to %u of the characters A-Z a-z 0-9 . _ - "
				 "and does not begin with a dot",
				 RAMLIFT_MAX_NAME - 1);
	return 0;
}

int option_transport(const char *text, enum option_transport *transport,
		     struct ramlift_error *error)
{
	unsigned index;
	int ret = option_word("--transport", text, transport_words, N_ITEMS(transport_words),
			      &index, error);

	if (!ret)
		*transport = (enum option_transport)index;
	return ret;
}

int option_divergence(const char *text, enum ramlift_on_divergence *on_divergence,
		      struct ramlift_error *error)
{
	unsigned index;
	int ret = option_word("--on-divergence", text, divergence_words, N_ITEMS(divergence_words),
			      &index, error);

	if (!ret)
		*on_divergence = (enum ramlift_on_divergence)index;
	return ret;
}

unsigned option_transport_list(enum option_transport transport,
			       const struct ramlift_transport *transports[2])
{
	unsigned n = 0;

	if (transport != TRANSPORT_TCP)
		transports[n++] = ramlift_transport_rdma();
	if (transport != TRANSPORT_RDMA)
		transports[n++] = ramlift_transport_tcp();
	return n;
}
