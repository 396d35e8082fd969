/*
 * E-State in C: local state at memory speed, and a global view that says who answered.
 *
 *   estate_options options = ESTATE_OPTIONS;
 *   options.cluster = "ids";
 *   options.node = "nf1";
 *   options.peers = "10.0.0.2:7600";
 *   estate *es;
 *   if (estate_open(&options, &es) != ESTATE_OK) { fprintf(stderr, "%s\n", estate_last_error()); }
 *   estate_add(es, "packets", 7, 1, NULL);
 *
 *   estate_query query = ESTATE_QUERY;
 *   query.pattern = "packets"; query.pattern_size = 7; query.reduce = "sum";
 *   estate_value *sum;
 *   if (estate_get_global(es, &query, &sum) == ESTATE_OK) { printf("%" PRId64 "\n", sum->integer); }
 *   estate_free(sum);
 *   estate_close(es);
 *
 * Rules that hold for every function:
 *  - It returns ESTATE_OK, or a positive status (nothing is wrong, there is just nothing), or a
 *    negative one (an error; estate_last_error() says what happened, to what, and what to do).
 *  - Any thread may call it at any time, except that nobody else uses what is being closed.
 *  - Keys and texts are UTF-8 and have a size; they need no NUL at their end and may contain one.
 *  - What it gives through a pointer to a pointer is one block of memory: give it back with
 *    estate_free(), once, whole. On an error the pointer is set to NULL. What it gets it copies.
 *  - Sizes and counts are in bytes and items, times in milliseconds unless named otherwise.
 *
 * Link with `pkg-config --cflags --libs estate`.
 */
#ifndef ESTATE_H
#define ESTATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Statuses --------------------------------------------------------------------------------- */

enum estate_status {
    ESTATE_OK = 0,
    ESTATE_NOT_FOUND = 1,     /* no such item, here or (global reads) anywhere */
    ESTATE_TIMEOUT = 2,       /* no event within the time given */
    ESTATE_ENDED = 3,         /* the watch has ended: the estate was closed */
    ESTATE_ARGUMENT = -1,     /* NULL where there must be something, or an option out of range */
    ESTATE_KEY = -2,          /* not UTF-8, empty, or longer than ESTATE_KEY_MAX */
    ESTATE_TOO_BIG = -3,      /* a value above 1 GiB */
    ESTATE_TOO_SMALL = -4,    /* the buffer is smaller than the value */
    ESTATE_TYPE = -5,         /* the item holds another type */
    ESTATE_OVERFLOW = -6,     /* a sum leaves the range of int64_t */
    ESTATE_MEMORY = -7,       /* memory_limit reached, nothing may be evicted */
    ESTATE_FROZEN = -8,       /* the item is being moved away */
    ESTATE_PATTERN = -9,      /* a glob or regex that is none */
    ESTATE_REDUCER = -10,     /* no reducer of that name */
    ESTATE_REDUCE = -11,      /* the items do not go together, or a reducer of yours failed */
    ESTATE_INCOMPLETE = -12,  /* fewer members answered than required */
    ESTATE_NO_MEMBER = -13,   /* no live member has that name */
    ESTATE_NAME_TAKEN = -14,  /* another live member has this name */
    ESTATE_ABORTED = -15,     /* the move, or joint write, did not take place anywhere */
    ESTATE_CLOSED = -16,      /* closed, or opened before a fork */
    ESTATE_BACKEND = -17,     /* a server or the network did not do what it was asked */
    ESTATE_UNSUPPORTED = -18, /* this backend cannot do it */
    ESTATE_INTERNAL = -19,    /* a fault of the library: please report it */
    ESTATE_UNDECIDED = -20,   /* the move's source cannot be reached: repeat with the same id */
    ESTATE_SCAN_STOPPED = -21 /* looking through all keys took longer than the time-out */
};

/* What a status means, in a few words. Never NULL. */
const char *estate_strerror(int status);

/* One line about the last call of this thread that gave a negative status; "" before the first.
 * Valid until the next such call of this thread. */
const char *estate_last_error(void);

/* Version of the library, "MAJOR.MINOR.PATCH". */
const char *estate_version(void);

/* Gives back what the library allocated. NULL does nothing. */
void estate_free(void *block);

/* Values ----------------------------------------------------------------------------------- */

#define ESTATE_KEY_MAX 1024

enum estate_type { ESTATE_BYTES = 0, ESTATE_STR = 1, ESTATE_INT = 2, ESTATE_FLOAT = 3 };

/* Bytes of somebody else. */
typedef struct estate_text {
    const char *data; /* what the library gives has a NUL behind it */
    size_t size;
} estate_text;

/* A value. Which of the others counts depends on the type. */
typedef struct estate_value {
    int type; /* enum estate_type */
    int64_t integer;
    double number;
    estate_text bytes; /* ESTATE_BYTES, ESTATE_STR */
} estate_value;

/* An item of a view. */
typedef struct estate_entry {
    estate_text key;
    estate_text node; /* who holds it */
    estate_value value;
    uint64_t version;    /* hybrid logical clock: ms since 1970 << 16 | counter */
    uint64_t expires_ms; /* ms since 1970; 0: never */
} estate_entry;

/* Joining and leaving ---------------------------------------------------------------------- */

typedef struct estate estate;

/* Start from ESTATE_OPTIONS. Strings end with NUL; lists are separated by commas; NULL takes the
 * default. */
typedef struct estate_options {
    size_t size;         /* sizeof(estate_options), so that later versions may have more */
    const char *cluster; /* members of one cluster see each other; required */
    const char *node;    /* unique in the cluster; required */
    const char *backend; /* "p2p" (default), "local", "redis://…", "redis+cluster://…" */
    const char *listen;  /* "HOST:PORT,…"; default: any address */
    const char *peers;   /* "HOST:PORT,…" of members to begin with */
    int scouting;        /* also find members by multicast */
    int relay;           /* pass messages on between members that cannot reach each other */
    const char *tls_ca, *tls_certificate, *tls_key; /* PEM files; all three or none */
    size_t memory_limit;                            /* bytes for items; 0: none */
    uint64_t failure_after_ms;                      /* 0: 1,000 */
    uint64_t timeout_ms;                            /* of global operations; 0: 1,000 */
} estate_options;

#define ESTATE_OPTIONS {sizeof(estate_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

int estate_open(const estate_options *options, estate **es);

/* Leaves. Handles and watches that are still open give ESTATE_CLOSED and are closed as ever.
 * NULL does nothing. */
void estate_close(estate *es);

/* The items of this instance ---------------------------------------------------------------- */

int estate_set(estate *es, const char *key, size_t key_size, const void *data, size_t size);
int estate_set_str(estate *es, const char *key, size_t key_size, const char *text, size_t size);
int estate_set_int(estate *es, const char *key, size_t key_size, int64_t integer);
int estate_set_float(estate *es, const char *key, size_t key_size, double number);

/* How an item is written. Start from ESTATE_WRITE. */
typedef struct estate_write {
    size_t size;
    uint64_t ttl_ms;   /* the item expires (and may be evicted) after it; 0: never */
    estate_text after; /* what the writer has seen: the `history` of a view, for "causal" */
} estate_write;

#define ESTATE_WRITE {sizeof(estate_write), 0, {0, 0}}

/* Any type; `how` may be NULL. */
int estate_set_value(estate *es, const char *key, size_t key_size, const estate_value *value,
                     const estate_write *how);

/* The value, in a block of its own. ESTATE_NOT_FOUND leaves NULL. */
int estate_get(estate *es, const char *key, size_t key_size, estate_value **value);

/* Bytes or text into a buffer of yours; allocates nothing. *size becomes the size of the value, also
 * with ESTATE_TOO_SMALL (nothing is copied then). */
int estate_get_into(estate *es, const char *key, size_t key_size, void *buffer, size_t capacity,
                    size_t *size);
int estate_get_int(estate *es, const char *key, size_t key_size, int64_t *integer);
int estate_get_float(estate *es, const char *key, size_t key_size, double *number);

/* ESTATE_NOT_FOUND if there was none. */
int estate_delete(estate *es, const char *key, size_t key_size);

/* Adds to a counter, atomically; one that is not there begins at 0. `sum` may be NULL. */
int estate_add(estate *es, const char *key, size_t key_size, int64_t delta, int64_t *sum);

enum estate_kind { ESTATE_EXACT = 0, ESTATE_GLOB = 1, ESTATE_REGEX = 2 };

typedef struct estate_texts {
    size_t count;
    const estate_text *texts;
} estate_texts;

/* Keys of this instance's items that match. ESTATE_SCAN_STOPPED: it took longer than the time-out of
 * the options. */
int estate_keys(estate *es, const char *pattern, size_t pattern_size, int kind,
                estate_texts **keys);

/* Item handles: a key resolved once, for updates in a few nanoseconds on the packet path. A handle
 * means what its key means: when the item has gone, the next write makes it anew. Threads may share
 * one. */
typedef struct estate_item estate_item;

int estate_item_open(estate *es, const char *key, size_t key_size, estate_item **item);
void estate_item_close(estate_item *item);
int estate_item_add(estate_item *item, int64_t delta, int64_t *sum);
int estate_item_set(estate_item *item, const void *data, size_t size);
int estate_item_set_int(estate_item *item, int64_t integer);
int estate_item_get(estate_item *item, estate_value **value);
int estate_item_get_int(estate_item *item, int64_t *integer);
int estate_item_delete(estate_item *item);

/* Flow state -------------------------------------------------------------------------------- */

/* Room for any flow's text and its NUL. */
#define ESTATE_FLOW_MAX 160

/* Writes the canonical text of a flow ("flow:6,10.0.0.1:1024,10.0.0.2:80"); both directions give the
 * same. Addresses are in network order, 4 or 16 bytes (family 4 or 6), ports in host order. Keys of
 * the flow's items are this text, '/' and a name. `vlans` are up to two ids, outer first. */
int estate_flow(int family, uint8_t protocol, const void *address_a, uint16_t port_a,
                const void *address_b, uint16_t port_b, const uint16_t *vlans, size_t vlan_count,
                char text[ESTATE_FLOW_MAX]);

/* Moves all items of these flows, or the items with these keys, from the member `source` to this
 * instance, exactly once: repeated with the same move id it does nothing more. `items` (may be NULL)
 * becomes their number. */
int estate_take_flows(estate *es, const estate_text *flows, size_t count, const char *source,
                      uint64_t move_id, uint64_t *items);
int estate_take_keys(estate *es, const estate_text *keys, size_t count, const char *source,
                     uint64_t move_id, uint64_t *items);

/* Gives up a move to here that is under way in another thread: it takes place nowhere, and that thread
 * gets ESTATE_ABORTED. Does not wait. ESTATE_NOT_FOUND: there is no such move under way, or its source
 * has been asked to decide it and it is too late. */
int estate_take_abort(estate *es, uint64_t move_id);

/* You vouch that the process of a member that has gone has ended, and its memory with it: as when its
 * host is lost for good, so that nothing else will ever prove it. Moves that waited for its decision
 * are decided in favour of the copy that is here; `moves` (may be NULL) becomes their number. If it
 * lives after all, both own the items until they hear of each other, and what one of them has written is
 * lost then. ESTATE_ARGUMENT: it is a live member; ESTATE_NO_MEMBER: none of that name has gone. */
int estate_declare_dead(estate *es, const char *node, uint64_t *moves);

/* Joint writes ------------------------------------------------------------------------------ */

enum estate_op { ESTATE_OP_SET = 0, ESTATE_OP_ADD = 1, ESTATE_OP_DELETE = 2 };

/* One write of a joint write. */
typedef struct estate_part {
    estate_text key;
    int op;             /* enum estate_op */
    estate_value value; /* to set; to add: its integer */
} estate_part;

/* Writes `parts` here, while `members` ("nf2,nf3") write theirs by the same call with the same id,
 * all at one instant: a snapshot sees all of it or nothing. ESTATE_ABORTED: not all of them did
 * within timeout_ms (0: that of the options), and nothing was written anywhere. */
int estate_joint(estate *es, uint64_t id, const char *members, const estate_part *parts,
                 size_t count, uint64_t timeout_ms);

/* The global view --------------------------------------------------------------------------- */

/* A reducer of yours: all matching items in (at least one), one value out. It runs in the thread
 * that asks. Returns ESTATE_OK with `result` filled in, or ESTATE_NOT_FOUND for "no value"; anything
 * else makes the read fail with ESTATE_REDUCE and is mentioned by estate_last_error(). What
 * result->bytes points to is copied as soon as it returns. */
typedef int (*estate_reducer)(void *context, const estate_entry *items, size_t count,
                              estate_value *result);

/* Makes a reducer known by name to all reads of this process; NULL takes it away. */
int estate_register_reducer(const char *name, estate_reducer reducer, void *context);

enum estate_consistency {
    ESTATE_LIVE = 0,    /* every member is asked now */
    ESTATE_CACHED = 1,  /* a view that is kept here, no older than max_age_ms */
    ESTATE_SNAPSHOT = 2 /* every member answers as of one instant */
};

enum { ESTATE_ALL = 0, ESTATE_QUORUM = -1 }; /* or a number of members */

/* Start from ESTATE_QUERY. */
typedef struct estate_query {
    size_t size;
    const char *pattern;
    size_t pattern_size;
    int kind;           /* enum estate_kind */
    const char *reduce; /* latest sum avg min max count any all union concat causal, or yours */
    estate_reducer reducer; /* instead of a name */
    void *context;
    int consistency; /* enum estate_consistency */
    uint64_t max_age_ms;
    uint64_t timeout_ms; /* 0: that of the options */
    int require;         /* ESTATE_ALL, ESTATE_QUORUM, or how many have to answer */
} estate_query;

#define ESTATE_QUERY {sizeof(estate_query), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

typedef struct estate_view {
    int found;          /* whether there is a value */
    estate_value value; /* none for a reducer that gave none */
    size_t item_count;  /* a reducer of yours: all items; "causal": the siblings */
    const estate_entry *items;
    size_t answered_count;
    const estate_text *answered;
    size_t missing_count;
    const estate_text *missing;
    int complete;        /* nobody is missing */
    int64_t oldest_us;   /* how old the oldest part may be, microseconds; -1: given now */
    estate_text history; /* of the items: for estate_write.after */
} estate_view;

/* The value. ESTATE_NOT_FOUND: nobody has a matching item. ESTATE_INCOMPLETE: the time is up and
 * fewer than required have answered; *value is that of the others then, or NULL. */
int estate_get_global(estate *es, const estate_query *query, estate_value **value);

/* The same with all that is known about it, whoever answered (`require` does not matter). */
int estate_view_global(estate *es, const estate_query *query, estate_view **view);

/* Members, changes, figures ------------------------------------------------------------------ */

/* Live members by name, this one included. */
int estate_members(estate *es, estate_texts **members);

typedef struct estate_watch estate_watch;

typedef struct estate_event {
    estate_entry item; /* key and node only, if it has gone */
    int gone;
} estate_event;

/* Changes of matching items on all members: all that are made after this has returned; several of
 * one item may become one. */
int estate_watch_open(estate *es, const char *pattern, size_t pattern_size, int kind,
                      estate_watch **watch);
/* The next change. Waits for timeout_ms, or for ever if it is negative; ESTATE_TIMEOUT, ESTATE_ENDED. */
int estate_watch_next(estate_watch *watch, int64_t timeout_ms, estate_event **event);
void estate_watch_close(estate_watch *watch);

/* Has `hook` called, in a thread of the library, whenever another member has read globally what is
 * here. It must not block. */
typedef void (*estate_read_hook)(void *context, estate_text by, estate_text pattern);
int estate_on_global_read(estate *es, estate_read_hook hook, void *context);

typedef struct estate_figure {
    estate_text name;
    uint64_t value;
} estate_figure;

typedef struct estate_statistics {
    size_t count;
    const estate_figure *figures;
} estate_statistics;

/* Items, bytes, evicted, expired, and what the backend counts. */
int estate_figures(estate *es, estate_statistics **figures);

#ifdef __cplusplus
}
#endif

#endif
