/* Two members in one process: members BACKEND [HOST:PORT], where with p2p the first one listens. */
#include "check.h"
#include <inttypes.h>
#include <pthread.h>
#include <time.h>

static const char *backend;

static estate *member(const char *node, const char *listen, const char *peers)
{
    estate_options options = ESTATE_OPTIONS;
    estate *es = NULL;
    options.cluster = own_cluster();
    options.backend = backend;
    options.node = node;
    options.listen = listen;
    options.peers = peers;
    options.timeout_ms = 10000;
    options.failure_after_ms = 20000; /* under valgrind members are slow */
    CHECK(estate_open(&options, &es) == ESTATE_OK);
    return es;
}

static size_t count_members(estate *es)
{
    estate_texts *names;
    size_t count;
    CHECK(estate_members(es, &names) == ESTATE_OK);
    count = names->count;
    estate_free(names);
    return count;
}

static void until(estate *es, size_t count)
{
    const struct timespec moment = {0, 10 * 1000 * 1000};
    int tries;
    for (tries = 0; tries < 2000 && count_members(es) != count; tries++)
        nanosleep(&moment, NULL);
    CHECK(count_members(es) == count);
}

static int longest(void *context, const estate_entry *items, size_t count, estate_value *result)
{
    size_t n, best = 0;
    (void)context;
    for (n = 1; n < count; n++)
        if (items[n].value.bytes.size > items[best].value.bytes.size)
            best = n;
    *result = items[best].value;
    return ESTATE_OK;
}

static void hook(void *context, estate_text by, estate_text pattern)
{
    (void)by, (void)pattern;
    __atomic_add_fetch((int *)context, 1, __ATOMIC_SEQ_CST);
}

/* The other side of a joint write. */
static void *pay(void *es)
{
    estate_part part;

    memset(&part, 0, sizeof part);
    part.key = (estate_text){T("balance")};
    part.op = ESTATE_OP_ADD;
    part.value.type = ESTATE_INT;
    part.value.integer = 5;
    CHECK(estate_joint(es, 1, "one", &part, 1, 10000) == ESTATE_OK);
    return NULL;
}

/* Moves what is worth a while in another thread. */
enum { BIG = 1 << 20, BIG_ITEMS = 48 };

struct move {
    estate *to;
    estate_text flow;
    int status, over;
};

static void *take(void *argument)
{
    struct move *move = argument;
    move->status = estate_take_flows(move->to, &move->flow, 1, "one", 200, NULL);
    CHECK(move->status == ESTATE_OK || strstr(estate_last_error(), "abort") != NULL);
    __atomic_store_n(&move->over, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* A move that is given up takes place nowhere, and can be made again. */
static void abort_a_move(estate *one, estate *two)
{
    struct move move = {two, {T("flow:big")}, 0, 0};
    char *data = calloc(1, BIG), key[32];
    pthread_t thread;
    size_t got;
    int n, status = ESTATE_NOT_FOUND;
    uint64_t items;
    CHECK(data != NULL);
    for (n = 0; n < BIG_ITEMS; n++) {
        int size = snprintf(key, sizeof key, "flow:big/%d", n);
        CHECK(estate_set(one, key, (size_t)size, data, BIG) == ESTATE_OK);
    }
    CHECK(estate_take_abort(two, 200) == ESTATE_NOT_FOUND);
    pthread_create(&thread, NULL, take, &move);
    while (status == ESTATE_NOT_FOUND && !__atomic_load_n(&move.over, __ATOMIC_SEQ_CST))
        status = estate_take_abort(two, 200);
    pthread_join(thread, NULL);
    CHECK(status == ESTATE_OK && move.status == ESTATE_ABORTED);
    CHECK(estate_take_abort(two, 200) == ESTATE_NOT_FOUND);
    CHECK(estate_get_into(two, T("flow:big/0"), data, BIG, &got) == ESTATE_NOT_FOUND);
    CHECK(estate_get_into(one, T("flow:big/0"), data, BIG, &got) == ESTATE_OK && got == BIG);
    while ((status = estate_set_int(one, T("flow:big/written"), 1)) == ESTATE_FROZEN)
        continue; /* it has not heard of it yet */
    CHECK(status == ESTATE_OK);
    CHECK(estate_take_flows(two, &move.flow, 1, "one", 200, &items) == ESTATE_OK);
    CHECK(items == BIG_ITEMS + 1);
    CHECK(estate_take_abort(two, 200) == ESTATE_NOT_FOUND);
    free(data);
}

/* What only members can do that keep their items themselves. */
static void among_themselves(estate *one, estate *two)
{
    estate_part part;
    pthread_t thread;
    int64_t sum;
    uint64_t moves;

    memset(&part, 0, sizeof part);
    pthread_create(&thread, NULL, pay, two);
    part.key = (estate_text){T("balance")};
    part.op = ESTATE_OP_ADD;
    part.value.type = ESTATE_INT;
    part.value.integer = -5;
    CHECK(estate_joint(one, 1, "two", &part, 1, 10000) == ESTATE_OK);
    pthread_join(thread, NULL);
    CHECK(estate_get_int(one, T("balance"), &sum) == ESTATE_OK && sum == -5);
    CHECK(estate_get_int(two, T("balance"), &sum) == ESTATE_OK && sum == 5);
    CHECK(estate_joint(one, 2, "two", &part, 1, 50) == ESTATE_ABORTED);
    CHECK(estate_get_int(one, T("balance"), &sum) == ESTATE_OK && sum == -5);
    part.op = 7;
    CHECK(estate_joint(one, 3, "two", &part, 1, 50) == ESTATE_ARGUMENT);

    abort_a_move(one, two);
    CHECK(estate_declare_dead(one, "two", &moves) == ESTATE_ARGUMENT);
    CHECK(estate_declare_dead(one, "nobody", &moves) == ESTATE_NO_MEMBER);
}

int main(int argc, char **argv)
{
    const unsigned char here[4] = {10, 0, 0, 1}, there[4] = {10, 0, 0, 2};
    char flow[ESTATE_FLOW_MAX], key[ESTATE_FLOW_MAX + 16];
    estate_query query = ESTATE_QUERY;
    estate_value *value;
    estate_view *view;
    estate_watch *changes;
    estate_event *event;
    estate_text taken;
    estate *one, *two;
    int64_t sum;
    uint64_t items, moves;
    int size, status, servers, reads = 0;

    CHECK(argc == 2 || argc == 3);
    backend = argv[1];
    servers = at_servers(backend);
    one = member("one", argc > 2 ? argv[2] : NULL, NULL);
    two = member("two", NULL, argc > 2 ? argv[2] : NULL);
    until(one, 2);
    until(two, 2);
    status = estate_on_global_read(two, hook, &reads);
    CHECK(status == (servers ? ESTATE_UNSUPPORTED : ESTATE_OK));
    CHECK(estate_add(one, T("packets"), 30, NULL) == ESTATE_OK);
    CHECK(estate_add(two, T("packets"), 12, NULL) == ESTATE_OK);
    query.pattern = "packets";
    query.pattern_size = 7;
    query.reduce = "sum";
    CHECK(estate_get_global(one, &query, &value) == ESTATE_OK && value->integer == 42);
    estate_free(value);
    query.consistency = ESTATE_SNAPSHOT;
    CHECK(estate_get_global(two, &query, &value) == ESTATE_OK && value->integer == 42);
    estate_free(value);
    query.consistency = ESTATE_CACHED;
    query.max_age_ms = 1000;
    CHECK(estate_get_global(one, &query, &value) == ESTATE_OK && value->integer == 42);
    estate_free(value);
    query.consistency = ESTATE_LIVE;

    CHECK(estate_set_str(one, T("name"), T("short")) == ESTATE_OK);
    CHECK(estate_set_str(two, T("name"), T("much longer")) == ESTATE_OK);
    query.pattern = "name";
    query.pattern_size = 4;
    query.reducer = longest;
    CHECK(estate_get_global(one, &query, &value) == ESTATE_OK);
    CHECK(value->type == ESTATE_STR && same(value->bytes, T("much longer")));
    estate_free(value);
    CHECK(estate_view_global(one, &query, &view) == ESTATE_OK);
    CHECK(view->item_count == 2 && same(view->items[0].node, T("one")));
    CHECK(view->answered_count == 2 && view->missing_count == 0 && view->complete);
    estate_free(view);
    query.reducer = NULL;
    query.reduce = "sum";
    CHECK(estate_get_global(one, &query, &value) == ESTATE_REDUCE && value == NULL);
    CHECK(strstr(estate_last_error(), "name") != NULL);
    CHECK(servers || __atomic_load_n(&reads, __ATOMIC_SEQ_CST) > 0);

    CHECK(estate_watch_open(one, T("w/*"), ESTATE_GLOB, &changes) == ESTATE_OK);
    CHECK(estate_set_int(two, T("w/x"), 5) == ESTATE_OK);
    CHECK(estate_watch_next(changes, 10000, &event) == ESTATE_OK);
    CHECK(same(event->item.node, T("two")) && event->item.value.integer == 5);
    estate_free(event);

    if (!servers)
        among_themselves(one, two);

    CHECK(estate_flow(4, 6, here, 1024, there, 80, NULL, 0, flow) == ESTATE_OK);
    size = snprintf(key, sizeof key, "%s/packets", flow);
    CHECK(estate_set_int(one, key, (size_t)size, 7) == ESTATE_OK);
    taken.data = flow;
    taken.size = strlen(flow);
    CHECK(estate_take_flows(two, &taken, 1, "one", 99, &items) == ESTATE_OK && items == 1);
    CHECK(estate_get_int(two, key, (size_t)size, &sum) == ESTATE_OK && sum == 7);
    CHECK(estate_get_int(one, key, (size_t)size, &sum) == ESTATE_NOT_FOUND);
    CHECK(estate_take_flows(two, &taken, 1, "one", 99, &items) == ESTATE_OK && items == 1);
    status = estate_take_flows(two, &taken, 1, "nobody", 100, &items);
    CHECK(status == ESTATE_NO_MEMBER || status == ESTATE_ABORTED);
    CHECK(strstr(estate_last_error(), "nobody") != NULL);

    estate_close(two);
    until(one, 1);
    /* It said goodbye, so nothing waits for it. */
    status = estate_declare_dead(one, "two", &moves);
    CHECK(servers ? status == ESTATE_UNSUPPORTED : status == ESTATE_OK && moves == 0);
    query.pattern = "packets";
    query.pattern_size = 7;
    CHECK(estate_get_global(one, &query, &value) == ESTATE_OK && value->integer == 30);
    estate_free(value);
    estate_watch_close(changes);
    estate_close(one);
    puts("members agree");
    return 0;
}
