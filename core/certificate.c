/* SPDX-License-Identifier: Apache-2.0 */
/* Whose certificate is it, and is that somebody this side wants to talk to? */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include <openssl/x509v3.h>

#include "core/error.h"
#include "core/security.h"

struct name {
	char text[256];
};

/* Names go into logs and sentences: what cannot be printed, or is longer, is not a name. */
static bool take_text(const unsigned char *from, int length, struct name *name)
{
	if (length <= 0 || (size_t)length >= sizeof(name->text))
		return false;
	for (int i = 0; i < length; i++) {
		if (!isgraph(from[i]))
			return false;
	}
	memcpy(name->text, from, (size_t)length);
	name->text[length] = '\0';
	return true;
}

static bool take_general_name(const GENERAL_NAME *general, struct name *name)
{
	const ASN1_STRING *string = general->d.ia5; /* whichever of the two it is */

	if (general->type == GEN_DNS)
		return take_text(ASN1_STRING_get0_data(string), ASN1_STRING_length(string), name);
	if (general->type != GEN_IPADD)
		return false;
	if (ASN1_STRING_length(string) != 4 && ASN1_STRING_length(string) != 16)
		return false;
	return inet_ntop(ASN1_STRING_length(string) == 4 ? AF_INET : AF_INET6,
			 ASN1_STRING_get0_data(string), name->text, sizeof(name->text));
}

static bool take_common_name(X509 *certificate, struct name *name)
{
	const X509_NAME *subject = X509_get_subject_name(certificate);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	const ASN1_STRING *string;

	if (at < 0)
		return false;
	string = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	return take_text(ASN1_STRING_get0_data(string), ASN1_STRING_length(string), name);
}

/*
 * Give the names one by one, until one is the right one (true). They are the subject alternative
 * names, DNS and IP; the common name where there are none.
 */
static bool find_name(X509 *certificate, bool (*right)(void *context, const struct name *name),
		      void *context)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	bool found = false, any = false;
	struct name name;

	for (int i = 0; !found && i < sk_GENERAL_NAME_num(all); i++) {
		const GENERAL_NAME *general = sk_GENERAL_NAME_value(all, i);

		any = any || general->type == GEN_DNS || general->type == GEN_IPADD;
		if (take_general_name(general, &name))
			found = right(context, &name);
	}
	GENERAL_NAMES_free(all);
	if (!any && take_common_name(certificate, &name))
		found = right(context, &name);
	return found;
}

/* ---- is it wanted? ---- */

static bool allowed(void *context, const struct name *name)
{
	struct party *party = context;

	for (unsigned i = 0; i < party->security->n_allow; i++) {
		if (!fnmatch(party->security->allow[i], name->text, FNM_CASEFOLD)) {
			memcpy(party->name, name->text, sizeof(name->text));
			return true;
		}
	}
	return false;
}

static bool first(void *context, const struct name *name)
{
	struct party *party = context;

	memcpy(party->name, name->text, sizeof(name->text));
	return true;
}

/* Both as inet_ntop() writes them. */
static bool same_address(void *context, const struct name *name)
{
	return !strcmp(context, name->text);
}

/* A name or an address. An interface behind an address ("fe80::1%eth0") is not part of it. */
static bool is_for_host(X509 *certificate, const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	char text[256] = "";

	strncpy(text, host, sizeof(text) - 1);
	text[strcspn(text, "%")] = '\0';
	for (unsigned i = 0; i < 2; i++) {
		int family = i ? AF_INET6 : AF_INET;

		if (inet_pton(family, text, address) != 1)
			continue;
		inet_ntop(family, address, text, sizeof(text));
		return find_name(certificate, same_address, text);
	}
	return X509_check_host(certificate, text, 0, 0, NULL) == 1;
}

static bool is_wanted(struct party *party, X509 *certificate)
{
	if (party->security->n_allow)
		return find_name(certificate, allowed, party);
	if (!party->host) {
		find_name(certificate, first, party);
		return true; /* whoever the CA has certified, with a name or without */
	}
	if (!is_for_host(certificate, party->host))
		return false;
	snprintf(party->name, sizeof(party->name), "%s", party->host);
	return true;
}

/* ---- and if not, why ---- */

static bool append(void *context, const struct name *name)
{
	struct name *list = context;
	size_t used = strlen(list->text);

	snprintf(list->text + used, sizeof(list->text) - used, "%s%s", used ? ", " : "",
		 name->text);
	return false;
}

static void describe_time(const ASN1_TIME *when, char *text, size_t size)
{
	struct tm time;

	if (!ASN1_TIME_to_tm(when, &time) || !strftime(text, size, "%Y-%m-%d %H:%M UTC", &time))
		snprintf(text, size, "some time");
}

static void refuse_time(struct party *party, const char *names, X509 *certificate, bool expired)
{
	char when[64];

	describe_time(expired ? X509_get0_notAfter(certificate) : X509_get0_notBefore(certificate),
		      when, sizeof(when));
	error_set(
		&party->refused, -EACCES,
		expired ? "the certificate of %s (%s) expired at %s: renew cert.pem there, or set "
			  "the clock here"
			: "the certificate of %s (%s) is valid from %s only: look at the clocks of "
			  "both hosts",
		party->peer, names, when);
}

static void refuse_name(struct party *party, const char *names)
{
	if (party->security->n_allow)
		error_set(&party->refused, -EACCES,
			  "the certificate of %s is made out to %s, which no --allow pattern "
			  "permits",
			  party->peer, names);
	else
		error_set(
			&party->refused, -EACCES,
			"the certificate of %s is made out to %s, not to %s: connect by a name in "
			"it, or permit one with --allow",
			party->peer, names, party->host);
}

static void refuse(struct party *party, X509 *certificate, int why)
{
	struct name names = { "" };

	find_name(certificate, append, &names);
	if (!names.text[0])
		strcpy(names.text, "nobody");
	switch (why) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
		refuse_name(party, names.text);
		break;
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		refuse_time(party, names.text, certificate, why == X509_V_ERR_CERT_HAS_EXPIRED);
		break;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		error_set(&party->refused, -EACCES,
			  "the certificate of %s (%s) is not from the CA in %s/ca.pem: both sides "
			  "need certificates of one CA",
			  party->peer, names.text, party->security->tls_dir);
		break;
	case X509_V_ERR_INVALID_PURPOSE:
		error_set(&party->refused, -EACCES,
			  "the certificate of %s (%s) is not for a TLS %s: its extended key usage "
			  "must have both, or be absent",
			  party->peer, names.text, party->host ? "server" : "client");
		break;
	default:
		error_set(&party->refused, -EACCES, "the certificate of %s (%s) is refused: %s",
			  party->peer, names.text, X509_verify_cert_error_string(why));
	}
}

int certificate_verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct party *party = SSL_get_app_data(ssl);
	X509 *certificate = X509_STORE_CTX_get_current_cert(store);

	if (party->security->kind != SECURITY_CERTIFICATES) {
		error_set(&party->refused, -EACCES,
			  "%s has certificates, this side a pre-shared key: use the same on both "
			  "sides",
			  party->peer);
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	if (ok && !X509_STORE_CTX_get_error_depth(store) && !is_wanted(party, certificate)) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
		ok = 0;
	}
	if (!ok)
		refuse(party, certificate, X509_STORE_CTX_get_error(store));
	return ok;
}
