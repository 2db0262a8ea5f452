/* SPDX-License-Identifier: Apache-2.0 */
/* Protection and patience; see the header. */
#include "kvm/vmm/options_security.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/options.h"

int option_path(const char *option, const char *text, char path[PATH_MAX],
		struct ramlift_error *error)
{
	char here[PATH_MAX], result[PATH_MAX];
	int length;

	if (!text[0])
		return error_set(error, -EINVAL, "%s names no file", option);
	if (text[0] == '/')
		length = snprintf(result, sizeof(result), "%s", text);
	else if (getcwd(here, sizeof(here)))
		length = snprintf(result, sizeof(result), "%s/%s", here, text);
	else
		return error_set(error, -errno, "%s '%.200s': the current directory is gone: %s",
				 option, text, strerror(errno));
	if (length < 0 || (size_t)length >= sizeof(result))
		return error_set(error, -ENAMETOOLONG, "%s is too long a path", option);
	strcpy(path, result);
	return 0;
}

int option_allow(const char *text, struct option_security *security, struct ramlift_error *error)
{
	size_t length = strnlen(text, OPTION_MAX_ALLOW_BYTES);

	if (!length || length >= OPTION_MAX_ALLOW_BYTES)
		return error_set(error, -EINVAL,
				 "--allow takes a pattern of 1 to %u characters for the name in "
				 "the peer's certificate, like 'kvm*.example.org'",
				 OPTION_MAX_ALLOW_BYTES - 1);
	if (security->n_allow == OPTION_MAX_ALLOW)
		return error_set(error, -ERANGE, "--allow is given more than %u times",
				 OPTION_MAX_ALLOW);
	security->allow[security->n_allow] = strcpy(security->patterns[security->n_allow], text);
	security->n_allow++;
	return 0;
}

int option_wait(const char *option, const char *text, uint64_t *ns, struct ramlift_error *error)
{
	uint64_t seconds;
	int ret = option_number(option, text, 1, OPTION_MAX_WAIT_S, &seconds, error);

	if (!ret)
		*ns = seconds * NS_PER_S;
	return ret;
}

int option_security_check(const struct option_security *security, struct ramlift_error *error)
{
	bool tls = security->tls_dir[0], psk = security->psk_file[0];

	if (tls && psk)
		return error_set(error, -EINVAL,
				 "the peer proves itself by a certificate or by a key: give "
				 "--tls-dir or --psk-file, not both");
	if (security->insecure && (tls || psk))
		return error_set(error, -EINVAL,
				 "--insecure is for sessions without %s: leave one of them out",
				 tls ? "--tls-dir" : "--psk-file");
	if (security->n_allow && !tls)
		return error_set(error, -EINVAL,
				 "--allow is about names in certificates: it needs --tls-dir");
	return 0;
}

static void put_wait(json_t *request, const char *key, uint64_t ns)
{
	if (ns)
		json_object_set_new(request, key, json_integer((json_int_t)ns));
}

void option_security_put(const struct option_security *security, json_t *request)
{
	json_t *allow = json_array();

	if (security->tls_dir[0])
		json_object_set_new(request, "tls_dir", json_string(security->tls_dir));
	if (security->psk_file[0])
		json_object_set_new(request, "psk_file", json_string(security->psk_file));
	for (unsigned i = 0; i < security->n_allow; i++)
		json_array_append_new(allow, json_string(security->allow[i]));
	if (security->n_allow)
		json_object_set(request, "allow", allow);
	json_decref(allow);
	if (security->insecure)
		json_object_set_new(request, "insecure", json_true());
	put_wait(request, "peer_timeout_ns", security->peer_timeout_ns);
	put_wait(request, "io_timeout_ns", security->io_timeout_ns);
}

static int take_path(const json_t *request, const char *key, char path[PATH_MAX],
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);

	if (!value)
		return 0;
	/* Relative to what, only the asking side would know. */
	if (!json_is_string(value) || json_string_value(value)[0] != '/')
		return error_set(error, -EINVAL, "%s must be an absolute path", key);
	return option_path(key, json_string_value(value), path, error);
}

static int take_allow(struct option_security *security, const json_t *request,
		      struct ramlift_error *error)
{
	const json_t *patterns = json_object_get(request, "allow");
	int ret = 0;

	if (patterns && !json_is_array(patterns))
		return error_set(error, -EINVAL, "allow must be a list of patterns");
	for (size_t i = 0; !ret && i < json_array_size(patterns); i++) {
		const char *pattern = json_string_value(json_array_get(patterns, i));

		ret = option_allow(pattern ? pattern : "", security, error);
	}
	return ret;
}

static int take_wait(const json_t *request, const char *key, uint64_t *ns,
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);
	json_int_t wait_ns = json_integer_value(value);

	if (!value)
		return 0;
	if (wait_ns <= 0 || (uint64_t)wait_ns > OPTION_MAX_WAIT_S * NS_PER_S)
		return error_set(error, -EINVAL, "%s must be a time of up to %u s", key,
				 OPTION_MAX_WAIT_S);
	*ns = (uint64_t)wait_ns;
	return 0;
}

int option_security_take(struct option_security *security, const json_t *request,
			 struct ramlift_error *error)
{
	const json_t *insecure = json_object_get(request, "insecure");
	int ret;

	if (insecure && !json_is_boolean(insecure))
		return error_set(error, -EINVAL, "insecure must be true or false");
	security->insecure = json_is_true(insecure);
	ret = take_path(request, "tls_dir", security->tls_dir, error);
	if (!ret)
		ret = take_path(request, "psk_file", security->psk_file, error);
	if (!ret)
		ret = take_allow(security, request, error);
	if (!ret)
		ret = take_wait(request, "peer_timeout_ns", &security->peer_timeout_ns, error);
	if (!ret)
		ret = take_wait(request, "io_timeout_ns", &security->io_timeout_ns, error);
	return ret ? ret : option_security_check(security, error);
}

void option_security_apply(const struct option_security *security, struct ramlift_security *config,
			   struct ramlift_timeouts *timeouts)
{
	*config = (struct ramlift_security){
		.tls_dir = security->tls_dir[0] ? security->tls_dir : NULL,
		.psk_file = security->psk_file[0] ? security->psk_file : NULL,
		.allow = security->allow,
		.n_allow = security->n_allow,
		.insecure = security->insecure,
	};
	if (security->peer_timeout_ns)
		timeouts->heartbeat_ns = security->peer_timeout_ns;
	if (security->io_timeout_ns)
		timeouts->io_ns = security->io_timeout_ns;
}
