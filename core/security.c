/* SPDX-License-Identifier: Apache-2.0 */
#include "core/security.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "core/error.h"

#define KEY_DIGITS (2 * STREAM_SECRET_BYTES)

/* A key goes with one hash (RFC 8446, 4.2.11), so both sides must mean the same one. */
#define KEY_SUITE "TLS_AES_256_GCM_SHA384"

/*
 * How much is sent by one call. A lane also receives as much by one, whatever records it is: so its
 * stream can only be waited for by receiving from it.
 */
#define BUFFER_BYTES	  (32u << 10)
#define LANE_BUFFER_BYTES (128u << 10)

static const unsigned char key_suite_id[] = { 0x13, 0x02 };
static const unsigned char key_name[] = "ramlift";

/* Why OpenSSL said no, and forget it. */
static const char *reason(void)
{
	const char *words = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return words ? words : "OpenSSL does not say why";
}

/* ---- files ---- */

/* A file that nobody but its owner may read. */
static int open_secret(const char *path, int *fd, struct ramlift_error *error)
{
	struct stat status;
	int new_fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret;

	if (new_fd < 0)
		return error_set(error, -errno, "cannot open the key %s: %s", path,
				 strerror(errno));
	if (fstat(new_fd, &status)) {
		ret = error_set(error, -errno, "cannot look at %s: %s", path, strerror(errno));
	} else if (status.st_mode & (S_IRWXG | S_IRWXO)) {
		ret = error_set(error, -EACCES,
				"the key %s may be read by others than its owner, and may have "
				"been: make a new one, and 'chmod 600' it",
				path);
	} else {
		*fd = new_fd;
		return 0;
	}
	close(new_fd);
	return ret;
}

static int digit_value(char digit)
{
	return isdigit((unsigned char)digit) ? digit - '0'
					     : tolower((unsigned char)digit) - 'a' + 10;
}

static bool parse_key(const char *text, uint8_t *key)
{
	for (unsigned i = 0; i < KEY_DIGITS; i++) {
		if (!isxdigit((unsigned char)text[i]))
			return false;
	}
	if (strcmp(text + KEY_DIGITS, "") && strcmp(text + KEY_DIGITS, "\n") &&
	    strcmp(text + KEY_DIGITS, "\r\n"))
		return false;
	for (unsigned i = 0; i < STREAM_SECRET_BYTES; i++)
		key[i] = (uint8_t)(digit_value(text[2 * i]) << 4 | digit_value(text[2 * i + 1]));
	return true;
}

static int load_key(struct security *security, const char *path, struct ramlift_error *error)
{
	char text[KEY_DIGITS + 4] = ""; /* more than what is allowed is seen */
	ssize_t n;
	int fd, ret;

	ret = open_secret(path, &fd, error);
	if (ret)
		return ret;
	n = read(fd, text, sizeof(text) - 1);
	ret = n < 0 ? -errno : 0;
	close(fd);
	if (ret)
		error_set(error, ret, "cannot read the key %s: %s", path, strerror(-ret));
	else if (strlen(text) != (size_t)n || !parse_key(text, security->key))
		ret = error_set(error, -EINVAL,
				"%s is not one line of %u hexadecimal digits: make one with "
				"'openssl rand -hex %u'",
				path, KEY_DIGITS, STREAM_SECRET_BYTES);
	OPENSSL_cleanse(text, sizeof(text));
	return ret;
}

static int path_in(const char *directory, const char *name, char *path, struct ramlift_error *error)
{
	if (snprintf(path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
		return error_set(error, -ENAMETOOLONG, "the path of %s is too long", name);
	if (access(path, R_OK))
		return error_set(error, -errno,
				 "cannot read %s: %s; a TLS directory holds ca.pem, cert.pem and "
				 "key.pem",
				 path, strerror(errno));
	return 0;
}

static int load_ca(struct security *security, const char *directory, struct ramlift_error *error)
{
	STACK_OF(X509_NAME) * names;
	char path[PATH_MAX];
	int ret = path_in(directory, "ca.pem", path, error);

	if (ret)
		return ret;
	names = SSL_load_client_CA_file(path);
	if (!names || !SSL_CTX_load_verify_file(security->context, path)) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return error_set(error, -EINVAL, "%s holds no certificates of a CA (PEM): %s", path,
				 reason());
	}
	SSL_CTX_set_client_CA_list(security->context, names);
	return 0;
}

/* Nobody is there to type one in. */
static int no_passphrase(char *text, int size, int writing, void *unused)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)unused;
	return -1;
}

static int load_private_key(struct security *security, const char *directory,
			    struct ramlift_error *error)
{
	EVP_PKEY *key = NULL;
	char path[PATH_MAX];
	int fd, ret;
	BIO *file;

	ret = path_in(directory, "key.pem", path, error);
	if (!ret)
		ret = open_secret(path, &fd, error);
	if (ret)
		return ret;
	file = BIO_new_fd(fd, BIO_CLOSE);
	if (file)
		key = PEM_read_bio_PrivateKey(file, NULL, no_passphrase, NULL);
	else
		close(fd);
	BIO_free(file);
	if (!key)
		return error_set(error, -EINVAL,
				 "%s holds no private key (PEM, without a passphrase): %s", path,
				 reason());
	if (!SSL_CTX_use_PrivateKey(security->context, key))
		ret = error_set(error, -EINVAL,
				"%s is not the key of the certificate beside it: %s", path,
				reason());
	EVP_PKEY_free(key);
	return ret;
}

static int load_certificate(struct security *security, const char *directory,
			    struct ramlift_error *error)
{
	char path[PATH_MAX];
	int ret = path_in(directory, "cert.pem", path, error);

	if (!ret && !SSL_CTX_use_certificate_chain_file(security->context, path))
		ret = error_set(error, -EINVAL, "%s holds no usable certificate (PEM): %s", path,
				reason());
	if (!ret)
		ret = load_private_key(security, directory, error);
	return ret;
}

/* ---- keys in a handshake ---- */

static SSL_SESSION *key_session(SSL *ssl)
{
	const struct party *party = SSL_get_app_data(ssl);
	const uint8_t *key = party->security->key;
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && SSL_SESSION_set1_master_key(session, key, STREAM_SECRET_BYTES) &&
	    SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, key_suite_id)) &&
	    SSL_SESSION_set1_id_context(session, key_name, sizeof(key_name)) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int use_key(SSL *ssl, const EVP_MD *hash, const unsigned char **name, size_t *length,
		   SSL_SESSION **session)
{
	(void)hash; /* there is but one suite */
	*name = key_name;
	*length = sizeof(key_name) - 1;
	*session = key_session(ssl);
	return *session != NULL;
}

/* There is but one, whatever the other side calls it. */
static int find_key(SSL *ssl, const unsigned char *name, size_t length, SSL_SESSION **session)
{
	(void)name;
	(void)length;
	*session = key_session(ssl);
	return *session != NULL;
}

/* ---- all of it ---- */

static int make_context(struct security *security, struct ramlift_error *error)
{
	bool by_key = security->kind == SECURITY_KEY;
	SSL_CTX *context = SSL_CTX_new(TLS_method());

	if (!context)
		return error_set(error, -ENOMEM, "cannot set up TLS: %s", reason());
	security->context = context;
	SSL_CTX_set_options(context,
			    SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(context,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
			   certificate_verify);
	if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) ||
	    !SSL_CTX_set_num_tickets(context, 0) ||
	    !SSL_CTX_set_session_id_context(context, key_name, sizeof(key_name)) ||
	    (by_key && !SSL_CTX_set_ciphersuites(context, KEY_SUITE)))
		return error_set(error, -EINVAL, "OpenSSL refuses TLS 1.3: %s", reason());
	if (by_key) {
		SSL_CTX_set_psk_use_session_callback(context, use_key);
		SSL_CTX_set_psk_find_session_callback(context, find_key);
	}
	return 0;
}

static int load(struct security *security, const struct ramlift_security *config,
		struct ramlift_error *error)
{
	int ret;

	if (security->kind == SECURITY_NONE)
		return 0;
	if (security->kind == SECURITY_KEY) {
		ret = load_key(security, config->psk_file, error);
		return ret ? ret : make_context(security, error);
	}
	ret = make_context(security, error);
	if (ret)
		return ret;
	security->tls_dir = strdup(config->tls_dir);
	if (!security->tls_dir)
		return error_set(error, -ENOMEM, "no memory for a path");
	ret = load_ca(security, config->tls_dir, error);
	if (!ret)
		ret = load_certificate(security, config->tls_dir, error);
	return ret;
}

static int check_config(const struct ramlift_security *config, struct ramlift_error *error)
{
	if (config->tls_dir && config->psk_file)
		return error_set(error, -EINVAL,
				 "certificates and a pre-shared key: choose one of the two");
	if (config->insecure && (config->tls_dir || config->psk_file))
		return error_set(error, -EINVAL,
				 "insecure means plaintext: leave it out where there are "
				 "certificates or a key");
	if (config->n_allow && !config->tls_dir)
		return error_set(error, -EINVAL,
				 "names can be allowed only where certificates prove them: give a "
				 "TLS directory");
	return 0;
}

int security_new(const struct ramlift_security *config, struct security **result,
		 struct ramlift_error *error)
{
	struct security *security;
	int ret = check_config(config, error);

	if (ret)
		return ret;
	security = calloc(1, sizeof(*security));
	if (!security)
		return error_set(error, -ENOMEM, "no memory for TLS");
	security->kind = config->tls_dir    ? SECURITY_CERTIFICATES
			 : config->psk_file ? SECURITY_KEY
					    : SECURITY_NONE;
	security->buffer_bytes = BUFFER_BYTES;
	security->insecure = config->insecure;
	security->allow = config->allow;
	security->n_allow = config->n_allow;
	ret = load(security, config, error);
	ERR_clear_error(); /* what OpenSSL tried on the way */
	if (ret) {
		security_free(security);
		return ret;
	}
	*result = security;
	return 0;
}

int security_for_lanes(const uint8_t *secret, struct security **result, struct ramlift_error *error)
{
	struct security *security = calloc(1, sizeof(*security));
	int ret;

	if (!security)
		return error_set(error, -ENOMEM, "no memory for TLS");
	security->kind = SECURITY_KEY;
	memcpy(security->key, secret, sizeof(security->key));
	ret = make_context(security, error);
	if (ret) {
		security_free(security);
		return ret;
	}
	security->buffer_bytes = LANE_BUFFER_BYTES;
	SSL_CTX_set_read_ahead(security->context, 1);
	SSL_CTX_set_default_read_buffer_len(security->context, LANE_BUFFER_BYTES);
	*result = security;
	return 0;
}

void security_free(struct security *security)
{
	if (!security)
		return;
	SSL_CTX_free(security->context);
	free(security->tls_dir);
	OPENSSL_cleanse(security->key, sizeof(security->key));
	free(security);
}

int security_ssl_new(const struct security *security, struct party *party, SSL **result)
{
	SSL *ssl = SSL_new(security->context);

	if (!ssl) {
		ERR_clear_error();
		return -ENOMEM;
	}
	SSL_set_app_data(ssl, party);
	if (party->host)
		SSL_set_connect_state(ssl);
	else
		SSL_set_accept_state(ssl);
	*result = ssl;
	return 0;
}
