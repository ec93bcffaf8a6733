// SPDX-License-Identifier: Apache-2.0

// A PKCS#11 module that behaves as vendors document theirs: KEYFERRY_TEST_MODULE
// behind it does the work, KEYFERRY_PERSONALITY names the behaviours, separated by
// blanks, with their values as name=0x1B. Where each behaviour is from stands beside it.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef struct { ulong_t type; void *value; ulong_t length; } attribute;
typedef struct list { unsigned char version[2]; void *call[68]; } list;

enum { INITIALIZE = 0, FINALIZE, GET_FUNCTION_LIST = 3, GET_SLOT_LIST, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION,
	LOGIN = 18, CREATE_OBJECT = 20, COPY_OBJECT, DESTROY_OBJECT, GET_ATTRIBUTE_VALUE = 24, SET_ATTRIBUTE_VALUE, FIND_OBJECTS_INIT,
	FIND_OBJECTS, FIND_OBJECTS_FINAL, ENCRYPT_INIT = 29, ENCRYPT, SIGN_INIT = 42, GENERATE_KEY = 58, GENERATE_KEY_PAIR, WRAP_KEY, UNWRAP_KEY };
enum { CLASS = 0, TOKEN, PRIVATE, LABEL, VALUE = 0x11, KEY_TYPE = 0x100, ID = 0x102, SENSITIVE = 0x103, WRAP = 0x106, UNWRAP, MODULUS = 0x120, EXPONENT = 0x122,
	VALUE_LEN = 0x161, EXTRACTABLE = 0x162, LOCAL = 0x163, ALWAYS_SENSITIVE = 0x165 };
enum { PUBLIC_KEY = 2, PRIVATE_KEY, SECRET_KEY, RSA = 0, ACCELERATOR = 492971157 };
enum { READ_ONLY = 0x10, TYPE_INVALID = 0x12, VALUE_INVALID = 0x13, DEVICE_ERROR = 0x30, DEVICE_REMOVED = 0x32, NOT_SUPPORTED = 0x54, TEMPLATE_INCOMPLETE = 0xD0,
	TEMPLATE_INCONSISTENT = 0xD1, SESSION_COUNT = 0xB1, NOT_LOGGED_IN = 0x101, BUFFER_TOO_SMALL = 0x150, ALREADY_INITIALIZED = 0x191 };

enum { RSA_OAEP = 9, RSA_AES_KEY_WRAP = 0x1054, AES_KEY_GEN = 0x1080, AES_ECB, AES_KEY_WRAP_PAD = 0x210A };

static list real, ours;
static ulong_t logged; // the session that logged in
static long sessions, changes, vanished;
static int officer, initialised;
#define REAL(place, ...) ((ulong_t(*)())real.call[place])(__VA_ARGS__)

// played returns the value of a behaviour, 1 for one without, 0 for one that is not played.
static ulong_t played(const char *name) {
	const char *at = getenv("KEYFERRY_PERSONALITY");
	size_t n = strlen(name);
	for (; at != NULL && *at != 0; at += strcspn(at, " "), at += strspn(at, " "))
		if (strncmp(at, name, n) == 0 && (at[n] == 0 || at[n] == ' ' || at[n] == '='))
			return at[n] == '=' ? strtoul(at + n + 1, NULL, 0) : 1;
	return 0;
}

static attribute *get(attribute *a, ulong_t n, ulong_t type) {
	for (; n > 0; n--, a++) if (a->type == type) return a;
	return NULL;
}
static int is_true(attribute *a) { return a != NULL && a->length == 1 && *(unsigned char *)a->value; }
static int is_false(attribute *a) { return a != NULL && a->length == 1 && !*(unsigned char *)a->value; }
static ulong_t number(attribute *a) { return a != NULL && a->length == sizeof(ulong_t) ? *(ulong_t *)a->value : ~0UL; }

// changed ends the process at the kill-th change, before it is done or after, or says so of the fail-th that it
// failed: devices that restart, storage that is full, answers that are lost.
static ulong_t changed(int done) {
	if (!done) changes++;
	for (const char **how = (const char *[]){"kill", "fail", "twice", NULL}; !done && *how != NULL; how++)
		if (played(*how) == (ulong_t)changes) fprintf(stderr, "a change goes wrong: %s\n", *how);
	if (played("kill") == (ulong_t)changes && played("kill-after") == (ulong_t)done) raise(SIGKILL);
	if (played("fail") != (ulong_t)changes || played("fail-after") != (ulong_t)done) return 0;
	return played("fail-with") ? played("fail-with") : DEVICE_ERROR;
}
// The twice-th change is made twice: libyubihsm repeats a command whose answer was lost, and nethsm-pkcs11 a request.
#define CHANGE(call) do { \
	ulong_t lost = changed(0), result; \
	if (lost) return lost; \
	if (played("twice") == (ulong_t)changes) (void)call; \
	result = call; \
	lost = changed(1); \
	return lost ? lost : result; \
} while (0)

// reached does what the module must, and returns why it can't: nothing of it stays open.
static ulong_t reached(void) {
	// nShield's hardserver (127.0.0.1:9000), Luna's NTLS and CloudHSM's ENIs are reached by TCP.
	struct sockaddr_in host = {AF_INET, htons(9000), {htonl(INADDR_LOOPBACK)}, {0}};
	int s = -1;
	if (played("tcp")) {
		if ((s = socket(AF_INET, SOCK_STREAM, 0)) < 0) return DEVICE_ERROR;
		(void)!connect(s, (struct sockaddr *)&host, sizeof host); // its service is played
		close(s);
	}
	// libusb watches for devices by netlink: CCID drivers, yubihsm-pkcs11 with yhusb:// (it answers DEVICE_REMOVED).
	if (played("netlink")) {
		if ((s = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT)) < 0) return DEVICE_REMOVED;
		close(s);
	}
	// Modules of daemons with abstract sockets: D-Bus (tpm2-pkcs11 with tabrmd), udev.
	if (played("abstract")) {
		struct sockaddr_un to = {AF_UNIX, "\0keyferry-daemon"};
		s = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(s, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + sizeof "-keyferry-daemon" - 1) != 0) return DEVICE_ERROR;
		close(s);
	}
	// Logs and locks in /opt (Luna, nShield), shared memory (opencryptoki, CloudHSM), devices (TPMs, PCIe cards).
	char shm[64];
	snprintf(shm, sizeof shm, "/dev/shm/keyferry-test-%d", (int)getpid());
	const char *files[][2] = {{"log", getenv("KEYFERRY_TEST_LOG")}, {"shm", shm}, {"device", "/dev/full"}};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		if (!played(files[i][0])) continue;
		if ((s = open(files[i][1], O_RDWR | (i < 2 ? O_CREAT : 0), 0600)) < 0) return DEVICE_ERROR;
		close(s);
	}
	if (played("shm")) unlink(shm);
	return 0;
}

// declined is what a template is refused with, of any call that makes an object.
static ulong_t declined(attribute *a, ulong_t n) {
	attribute *id = get(a, n, ID), *label = get(a, n, LABEL), *token = get(a, n, TOKEN);
	// NetHSM knows no session objects: what is asked for, it stores.
	if (played("ignores-token") && token != NULL) *(unsigned char *)token->value = 1;
	// NetHSM since 2.1: a key has one name, which is its CKA_ID where it is given one, whatever its bytes.
	if (played("id-name") && id != NULL && label != NULL) { label->value = id->value; label->length = id->length; }
	ulong_t class = number(get(a, n, CLASS)), unreached = played("at-use") ? reached() : 0;
	if (unreached != 0) return unreached;
	// Full or write-protected partitions (Luna's CKR_DEVICE_MEMORY): what a session takes is not stored.
	if (played("no-store") && class == PRIVATE_KEY && is_true(get(a, n, TOKEN))) return played("no-store");
	// A security policy that forbids private keys to come in, or an HSM that is lost meanwhile.
	if (played("no-way") && class == PRIVATE_KEY && get(a, n, KEY_TYPE) != NULL) return played("no-way");
	// YubiHSM 2: CKA_TOKEN must be true, or CKR_ATTRIBUTE_VALUE_INVALID (yubihsm-pkcs11, C_CreateObject and C_GenerateKeyPair).
	if (played("stored-only") && is_false(get(a, n, TOKEN))) return VALUE_INVALID;
	// Both vendors' devices show the public half by themselves and take none.
	if (played("shows-public") && class == PUBLIC_KEY && get(a, n, MODULUS) != NULL) return VALUE_INVALID;
	// NetHSM 2.0: CKA_ID must be a name of printable characters (nethsm-pkcs11, keys::create).
	for (ulong_t i = 0; played("printable-id") && id != NULL && i < id->length; i++)
		if (((unsigned char *)id->value)[i] < 0x20 || ((unsigned char *)id->value)[i] > 0x7E) return VALUE_INVALID;
	// AWS CloudHSM client SDK 5: CKA_PRIVATE is true of every key ("PKCS #11 supported attributes").
	if (played("private-public") && class == PUBLIC_KEY && !is_true(get(a, n, PRIVATE))) return TEMPLATE_INCONSISTENT;
	// nShield's accelerator slot "cannot be used to create private objects".
	if (played("module-only") && is_true(get(a, n, PRIVATE))) return TEMPLATE_INCONSISTENT;
	// pkcs11key and others: no CKA_UNWRAP of a key that comes in.
	if (played("no-unwrap-attribute") && class == PRIVATE_KEY && get(a, n, UNWRAP) != NULL) return TYPE_INVALID;
	// NetHSM: making wants the administrator, who logs in after the operator (nethsm-pkcs11, "Roles").
	if (played("officer") && !officer) return NOT_LOGGED_IN;
	return 0;
}

static ulong_t initialize(void *args) {
	// AWS CloudHSM and others write a banner to stdout.
	if (played("banner")) { printf("HSM client 5.9, (c) its vendor\n"); fflush(stdout); }
	ulong_t rv = played("at-slots") || played("at-use") ? 0 : reached();
	if (rv != 0) return rv;
	// CloudHSM (crypto11 #95), nethsm-pkcs11 #324: a second C_Initialize of the process is declined.
	if (played("once") && initialised++) return played("once") > 1 ? played("once") : ALREADY_INITIALIZED;
	return REAL(INITIALIZE, args);
}

static ulong_t finalize(void *reserved) {
	sessions = 0;
	ulong_t rv = played("once") ? 0 : REAL(FINALIZE, reserved);
	return played("finalize") ? played("finalize") : rv; // p11-kit PR 134
}

// nShield with load sharing, which softcards want: a slot labelled "accelerator" comes beside those of card
// sets and softcards; it has no login ("PKCS#11 with load sharing mode", nshielddocs.entrust.com).
static ulong_t get_slot_list(int present, ulong_t *slots, ulong_t *n) {
	if (played("at-slots") && reached() != 0) return *n = 0; // Luna and CloudHSM without their HSM: no slots
	if (!played("accelerator")) return REAL(GET_SLOT_LIST, present, slots, n);
	ulong_t *others = slots;
	if (slots != NULL) { *others++ = ACCELERATOR; --*n; }
	ulong_t rv = REAL(GET_SLOT_LIST, present, others, n);
	++*n;
	return rv;
}

static ulong_t get_token_info(ulong_t slot, unsigned char *info) {
	if (slot == ACCELERATOR && played("accelerator")) {
		ulong_t initialised_token = 0x400;
		memset(memset(info, 0, 208), ' ', 96);
		memcpy(info, "accelerator", 11);
		memcpy(info + 96, &initialised_token, sizeof initialised_token);
		return 0;
	}
	if (played("mute")) return 0x06; // NetHSM that can't be reached, or whose certificate is not trusted
	ulong_t rv = REAL(GET_TOKEN_INFO, slot, info), flags, one = 1;
	memcpy(&flags, info + 96, sizeof flags);
	if (played("module-only")) flags &= ~(ulong_t)4; // nShield's accelerator slot: no CKF_LOGIN_REQUIRED
	flags |= played("flags"); // Luna's new partition: CKF_USER_PIN_TO_BE_CHANGED
	memcpy(info + 96, &flags, sizeof flags);
	if (played("unknown-serial")) memcpy(info + 80, "unknown         ", 16); // NetHSM while it is locked, or without the administrator
	if (played("sessions")) memcpy(info + 96 + 3 * sizeof flags, &one, sizeof one); // ulMaxRwSessionCount
	if (played("bytes-serial")) memcpy(info + 80, "\xFF\xFE\x01", 3); // cards that show their number as it is
	if (played("bytes-label")) memcpy(info, "caf\xE9", 4); // Latin-1: smart cards of national schemes
	return rv;
}

// Tokens of one session: smart cards (crypto11 #60).
static ulong_t open_session(ulong_t slot, ulong_t flags, void *application, void *notify, ulong_t *session) {
	if (played("sessions") && (ulong_t)sessions >= played("sessions")) return SESSION_COUNT;
	ulong_t rv = REAL(OPEN_SESSION, slot, flags, application, notify, session);
	if (rv == 0) sessions++;
	return rv;
}
static ulong_t close_session(ulong_t session) { sessions--; return REAL(CLOSE_SESSION, session); }

static ulong_t login(ulong_t session, ulong_t user, char *pin, ulong_t n) {
	if (played("hang")) sleep(played("hang")); // a device that is rebooting
	if (user == 0 && played("officer")) {
		officer = n == 8 && memcmp(pin, "so-right", 8) == 0;
		return officer ? 0 : 0xA0;
	}
	if (played("module-only")) return 0x103; // nShield's accelerator slot: "C_Login always fails"
	if (played("login")) return played("login"); // Luna: CKR_PIN_EXPIRED; a token without a PIN: 0x102
	ulong_t rv = REAL(LOGIN, session, user, pin, n);
	logged = session;
	return rv == 0 && played("logged-in") ? 0x100 : rv; // where sessions of a process share the login
}

// half finds the other half of a key, by the label.
static ulong_t half(ulong_t session, ulong_t of, ulong_t class) {
	char text[256];
	ulong_t found = 0, count = 0;
	attribute label = {LABEL, text, sizeof text};
	if (REAL(GET_ATTRIBUTE_VALUE, session, of, &label, 1UL) != 0) return 0;
	attribute wanted[] = {{CLASS, &class, sizeof class}, label};
	REAL(FIND_OBJECTS_INIT, session, wanted, 2UL);
	REAL(FIND_OBJECTS, session, &found, 1UL, &count);
	REAL(FIND_OBJECTS_FINAL, session);
	return count ? found : 0;
}

static ulong_t made_private(ulong_t session, attribute *a, ulong_t n, ulong_t *object) {
	ulong_t rv = REAL(CREATE_OBJECT, session, a, n, object), class = PUBLIC_KEY, type = RSA, public;
	attribute *label = get(a, n, LABEL), *m = get(a, n, MODULUS), *e = get(a, n, EXPONENT);
	if (rv != 0 || !played("shows-public") || m == NULL) return rv;
	unsigned char yes = 1;
	attribute shown[] = {{CLASS, &class, sizeof class}, {KEY_TYPE, &type, sizeof type}, {TOKEN, &yes, 1}, *label, {ID, "\0\1", 2}, *m, *e};
	rv = REAL(CREATE_OBJECT, session, shown, 7UL, &public);
	if (played("public-handle")) *object = public; // NetHSM: C_CreateObject returns the public half
	return rv;
}

static ulong_t create_object(ulong_t session, attribute *a, ulong_t n, ulong_t *object) {
	ulong_t rv = declined(a, n);
	if (rv != 0) return rv;
	ulong_t class = number(get(a, n, CLASS));
	if (class == PRIVATE_KEY && get(a, n, MODULUS) == NULL) return TEMPLATE_INCOMPLETE;
	if (class == PRIVATE_KEY) CHANGE(made_private(session, a, n, object));
	CHANGE(REAL(CREATE_OBJECT, session, a, n, object));
}

// kryoptic and NetHSM: CKR_ACTION_PROHIBITED; YubiHSM 2: CKR_FUNCTION_NOT_SUPPORTED; others 0x68, 0xD1, 0x06, 0x200.
static ulong_t copy_object(ulong_t session, ulong_t object, attribute *a, ulong_t n, ulong_t *copy) {
	if (played("no-store") && is_true(get(a, n, TOKEN))) return played("no-store");
	if (played("copy")) return played("copy");
	CHANGE(REAL(COPY_OBJECT, session, object, a, n, copy));
}

static ulong_t destroy_object(ulong_t session, ulong_t object) {
	ulong_t class = 0;
	attribute a = {CLASS, &class, sizeof class};
	if (played("officer") && !officer) return NOT_LOGGED_IN;
	if (!played("shows-public") || REAL(GET_ATTRIBUTE_VALUE, session, object, &a, 1UL) != 0 || class == SECRET_KEY)
		CHANGE(REAL(DESTROY_OBJECT, session, object));
	if (class == PUBLIC_KEY) return 0; // NetHSM says OK and destroys nothing
	ulong_t public = half(session, object, PUBLIC_KEY);
	if (public) REAL(DESTROY_OBJECT, session, public);
	CHANGE(REAL(DESTROY_OBJECT, session, object));
}

static ulong_t get_attribute_value(ulong_t session, ulong_t object, attribute *a, ulong_t n) {
	char label[64];
	ulong_t class = 0;
	attribute look[] = {{LABEL, label, sizeof label}, {CLASS, &class, sizeof class}};
	REAL(GET_ATTRIBUTE_VALUE, session, object, look, 2UL);
	int foreign = look[0].length == 7 && memcmp(label, "foreign", 7) == 0;
	ulong_t rv = 0;
	for (ulong_t i = 0; i < n; i++) {
		ulong_t t = a[i].type;
		if ((played("foreign") && foreign && (t == LABEL || t == ID)) // pkcs11key #20, aws-kms-pkcs11 #35, tpm2-pkcs11 #286
			|| (played("no-exponent") && class == PRIVATE_KEY && t == EXPONENT) // SoftHSM #847
			|| (played("no-history") && (t == LOCAL || t == ALWAYS_SENSITIVE || t == ALWAYS_SENSITIVE - 1))
			|| (played("no-modulus") && class == PRIVATE_KEY && t == MODULUS) // smart cards whose profile has it beside the public half alone
			|| (played("no-public-id") && class == PUBLIC_KEY && t == ID)) {
			a[i].length = ~0UL;
			rv = played("foreign") > 1 ? played("foreign") : TYPE_INVALID;
		}
	}
	if (rv != 0) return rv;
	rv = REAL(GET_ATTRIBUTE_VALUE, session, object, a, n);
	// SoftHSM with a database: a private key has no CKA_PUBLIC_EXPONENT (SoftHSMv2 #847), and what the database
	// does not give back is shown by its default, which is empty (#890).
	attribute *e = get(a, n, EXPONENT);
	if (played("empty-exponent") && class == PRIVATE_KEY && e != NULL) e->length = 0;
	return rv;
}

// renamed gives both halves of a key another name.
static ulong_t renamed(ulong_t session, ulong_t object, attribute *id) {
	ulong_t public = half(session, object, PUBLIC_KEY);
	attribute name[] = {{LABEL, id->value, id->length}, *id};
	if (public) REAL(SET_ATTRIBUTE_VALUE, session, public, name, 2UL);
	return REAL(SET_ATTRIBUTE_VALUE, session, object, name, 2UL);
}

static ulong_t set_attribute_value(ulong_t session, ulong_t object, attribute *a, ulong_t n) {
	// YubiHSM 2 changes CKA_ID and CKA_LABEL alone (yubihsm-pkcs11, C_SetAttributeValue); NetHSM 2.0 nothing.
	if (played("frozen") && get(a, n, EXTRACTABLE) != NULL) return played("frozen");
	if (played("id-name") && (n != 1 || get(a, n, ID) == NULL)) return READ_ONLY; // NetHSM: CKA_ID alone can be set
	if (played("id-name")) CHANGE(renamed(session, object, get(a, n, ID)));
	CHANGE(REAL(SET_ATTRIBUTE_VALUE, session, object, a, n));
}

// Searches by a modulus find every key (nethsm-pkcs11), or nothing (yubihsm-pkcs11), whose searches by a name
// follow a null pointer where an object vanishes meanwhile.
static ulong_t find_objects_init(ulong_t session, attribute *a, ulong_t n) {
	vanished = 0;
	if (played("search-crash") && (get(a, n, LABEL) != NULL || get(a, n, ID) != NULL)) raise(SIGSEGV);
	if (get(a, n, MODULUS) != NULL && played("search") == 1) return REAL(FIND_OBJECTS_INIT, session, a, 0UL);
	if (get(a, n, MODULUS) != NULL && played("search") == 2) a[0] = (attribute){LABEL, "nothing has this label", 22};
	return REAL(FIND_OBJECTS_INIT, session, a, n);
}

// What another program removes meanwhile is listed and can't be described.
static ulong_t find_objects(ulong_t session, ulong_t *found, ulong_t max, ulong_t *n) {
	ulong_t rv = REAL(FIND_OBJECTS, session, found, max, n);
	if (rv == 0 && played("vanishing") && !vanished && *n < max) { found[(*n)++] = 0x7FFF; vanished = 1; }
	return rv;
}

static ulong_t sign_init(ulong_t session, void *how, ulong_t key) {
	if (played("session-login") && session != logged) return NOT_LOGGED_IN; // nethsm-pkcs11: a login is one session's
	if (played("call")) return played("call"); // Luna: CKR_PIN_EXPIRED at each call after the login
	return REAL(SIGN_INIT, session, how, key);
}

static ulong_t generate_key(ulong_t session, void *how, attribute *a, ulong_t n, ulong_t *key) {
	ulong_t rv = declined(a, n);
	return rv != 0 ? rv : REAL(GENERATE_KEY, session, how, a, n, key);
}

static ulong_t generate_key_pair(ulong_t session, void *how, attribute *a, ulong_t n, attribute *b, ulong_t m, ulong_t *public, ulong_t *private) {
	ulong_t rv = declined(b, m);
	if (rv == 0) rv = declined(a, n);
	if (rv == NOT_LOGGED_IN && played("officer") > 1) rv = played("officer"); // NetHSM says FUNCTION_FAILED
	if (rv == 0 && played("private-public") && !is_true(get(a, n, PRIVATE))) rv = TEMPLATE_INCONSISTENT;
	if (rv != 0) return rv;
	CHANGE(REAL(GENERATE_KEY_PAIR, session, how, a, n, b, m, public, private));
}

typedef struct { ulong_t type; void *parameter; ulong_t length; } mechanism;

// block encrypts a block of AES by the token.
static ulong_t block(ulong_t session, ulong_t key, unsigned char *b) {
	mechanism ecb = {AES_ECB, NULL, 0};
	unsigned char out[16];
	ulong_t n = sizeof out, rv = REAL(ENCRYPT_INIT, session, &ecb, key);
	if (rv == 0) rv = REAL(ENCRYPT, session, b, 16UL, out, &n);
	memcpy(b, out, sizeof out);
	return rv;
}

// exactly wraps a private key as RFC 5649 has it (Luna, nShield, CloudHSM and kryoptic document that), which
// SoftHSM 2.6.1 does not: what SoftHSM wraps, and can open again, has zeros behind it.
static ulong_t exactly(ulong_t session, ulong_t under, ulong_t key, unsigned char *out, ulong_t *n) {
	unsigned char wrapped[4096], b[16], no = 0, yes = 1;
	ulong_t size = sizeof wrapped, class = SECRET_KEY, type = 0x10, opened, j = 1; // CKK_GENERIC_SECRET
	mechanism pad = {AES_KEY_WRAP_PAD, NULL, 0};
	attribute plain[] = {{CLASS, &class, sizeof class}, {KEY_TYPE, &type, sizeof type}, {TOKEN, &no, 1}, {SENSITIVE, &no, 1}, {EXTRACTABLE, &yes, 1}};
	ulong_t rv = REAL(WRAP_KEY, session, &pad, under, key, wrapped, &size);
	if (rv == 0) rv = REAL(UNWRAP_KEY, session, &pad, under, wrapped, size, plain, 5UL, &opened);
	if (rv != 0) return rv;
	attribute value = {VALUE, out + 8, *n - 16};
	rv = REAL(GET_ATTRIBUTE_VALUE, session, opened, &value, 1UL);
	REAL(DESTROY_OBJECT, session, opened);
	if (rv != 0) return rv;
	ulong_t length = 4 + (out[10] << 8 | out[11]), blocks = (length + 7) / 8; // 30 82 and two bytes of length
	memcpy(out, "\xA6\x59\x59\xA6\0\0", 6);
	out[6] = length >> 8, out[7] = length;
	memset(out + 8 + length, 0, blocks * 8 - length);
	for (ulong_t round = 0; round < 6 && rv == 0; round++)
		for (ulong_t i = 1; i <= blocks && rv == 0; i++, j++) {
			memcpy(b, out, 8), memcpy(b + 8, out + 8 * i, 8);
			rv = block(session, under, b);
			memcpy(out, b, 8), memcpy(out + 8 * i, b + 8, 8);
			out[6] ^= j >> 8, out[7] ^= j;
		}
	*n = 8 * (blocks + 1);
	return rv;
}

// wrap_key asks and gives as the others do: a length for no buffer.
static ulong_t wrap_key(ulong_t session, mechanism *how, ulong_t under, ulong_t key, unsigned char *out, ulong_t *n) {
	if (played("no-wrap")) return NOT_SUPPORTED;
	if (how->type != played("wrap")) return REAL(WRAP_KEY, session, how, under, key, out, n);
	unsigned char buffer[8192];
	ulong_t head = 0, rest, rv = 0, aes = under, bits = 256 / 8;
	if (how->type == RSA_AES_KEY_WRAP) { // an AES key of the token's own stands before it, under RSA-OAEP
		unsigned char no = 0, yes = 1;
		struct { ulong_t hash, mgf, source; void *data; ulong_t length; } sha1 = {0x220, 1, 1, NULL, 0};
		mechanism generate = {AES_KEY_GEN, NULL, 0}, oaep = {RSA_OAEP, &sha1, sizeof sha1};
		attribute fresh[] = {{TOKEN, &no, 1}, {VALUE_LEN, &bits, sizeof bits}, {EXTRACTABLE, &yes, 1}, {WRAP, &yes, 1}};
		head = sizeof buffer;
		rv = REAL(GENERATE_KEY, session, &generate, fresh, 4UL, &aes);
		if (rv == 0) rv = REAL(WRAP_KEY, session, &oaep, under, aes, buffer, &head);
	}
	rest = sizeof buffer - head;
	if (rv == 0) rv = exactly(session, aes, key, buffer + head, &rest);
	if (aes != under) REAL(DESTROY_OBJECT, session, aes);
	if (rv != 0 || out == NULL) return *n = head + rest, rv;
	if (*n < head + rest) return BUFFER_TOO_SMALL;
	memcpy(out, buffer, *n = head + rest);
	return 0;
}

static ulong_t unwrap_key(ulong_t session, void *how, ulong_t under, void *in, ulong_t m, attribute *a, ulong_t n, ulong_t *key) {
	if (played("no-unwrap")) return NOT_SUPPORTED;
	if (number(get(a, n, CLASS)) == SECRET_KEY) {
		// Luna before firmware 7.9.3 wants the length; AWS CloudHSM forbids it ("Key wrapping").
		if (played("length-wanted") && get(a, n, VALUE_LEN) == NULL) return TEMPLATE_INCOMPLETE;
		if (played("length-forbidden") && get(a, n, VALUE_LEN) != NULL) return TEMPLATE_INCONSISTENT;
	}
	attribute bare[64];
	ulong_t kept = 0;
	for (ulong_t i = 0; i < n && kept < 64; i++)
		if (a[i].type != VALUE_LEN) bare[kept++] = a[i]; // SoftHSM itself takes none
	ulong_t rv = declined(a, n);
	if (rv != 0) return rv;
	CHANGE(REAL(UNWRAP_KEY, session, how, under, in, m, bare, kept, key));
}

#ifdef ONLY_VERSION_3
ulong_t C_GetInterface(void) { return 0; }
#elif !defined NO_MODULE
ulong_t C_GetFunctionList(list **out) {
	if (played("list")) return played("list");
	void *module = dlopen(getenv("KEYFERRY_TEST_MODULE"), RTLD_NOW);
	list *found;
	ulong_t (*get)(list **) = module == NULL ? NULL : (ulong_t(*)(list **))dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&found) != 0) return 7;
	real = ours = *found;
	void *mine[][2] = {{(void *)INITIALIZE, initialize}, {(void *)FINALIZE, finalize}, {(void *)GET_FUNCTION_LIST, C_GetFunctionList},
		{(void *)GET_SLOT_LIST, get_slot_list}, {(void *)GET_TOKEN_INFO, get_token_info}, {(void *)OPEN_SESSION, open_session}, {(void *)CLOSE_SESSION, close_session},
		{(void *)LOGIN, login}, {(void *)CREATE_OBJECT, create_object}, {(void *)COPY_OBJECT, copy_object}, {(void *)DESTROY_OBJECT, destroy_object},
		{(void *)GET_ATTRIBUTE_VALUE, get_attribute_value}, {(void *)SET_ATTRIBUTE_VALUE, set_attribute_value}, {(void *)FIND_OBJECTS_INIT, find_objects_init}, {(void *)FIND_OBJECTS, find_objects},
		{(void *)SIGN_INIT, sign_init}, {(void *)GENERATE_KEY, generate_key}, {(void *)GENERATE_KEY_PAIR, generate_key_pair},
		{(void *)WRAP_KEY, wrap_key}, {(void *)UNWRAP_KEY, unwrap_key}};
	for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) ours.call[(size_t)mine[i][0]] = mine[i][1];
	if (played("no-function")) ours.call[played("no-function")] = NULL; // a vendor's stub that was forgotten
	if (played("no-list")) return *out = NULL, 0;
	*out = &ours;
	return 0;
}
#endif
