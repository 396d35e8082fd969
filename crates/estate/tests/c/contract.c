/* Every function of estate.h, on the backend that is named first (default: local). */
#include "check.h"
#include <inttypes.h>

static void values(estate *es)
{
    estate_value *value;
    estate_value given = {ESTATE_FLOAT, 0, 2.5, {0, 0}};
    estate_write how = ESTATE_WRITE;
    const char key[] = "nul\0and \xc3\xbc\n*?[";
    const char data[] = "\0\xff\xfe\0";
    char buffer[8];
    size_t size;
    int64_t integer;
    double number;

    CHECK(estate_set(es, T(key), T(data)) == ESTATE_OK);
    CHECK(estate_get(es, T(key), &value) == ESTATE_OK);
    CHECK(value->type == ESTATE_BYTES && same(value->bytes, T(data)));
    estate_free(value);
    CHECK(estate_get_into(es, T(key), buffer, sizeof buffer, &size) == ESTATE_OK);
    CHECK(size == 4 && memcmp(buffer, data, 4) == 0);
    memset(buffer, 'x', sizeof buffer);
    CHECK(estate_get_into(es, T(key), buffer, 3, &size) == ESTATE_TOO_SMALL);
    CHECK(size == 4 && buffer[0] == 'x');

    CHECK(estate_set(es, T("empty"), NULL, 0) == ESTATE_OK);
    CHECK(estate_get_into(es, T("empty"), NULL, 0, &size) == ESTATE_OK && size == 0);

    CHECK(estate_set_str(es, T("text"), T("gr\xc3\xbc\xc3\x9f")) == ESTATE_OK);
    CHECK(estate_get(es, T("text"), &value) == ESTATE_OK);
    CHECK(value->type == ESTATE_STR && same(value->bytes, T("gr\xc3\xbc\xc3\x9f")));
    estate_free(value);
    CHECK(estate_set_str(es, T("text"), T("\xff")) == ESTATE_ARGUMENT);

    CHECK(estate_set_int(es, T("int"), INT64_MIN) == ESTATE_OK);
    CHECK(estate_get_int(es, T("int"), &integer) == ESTATE_OK && integer == INT64_MIN);
    CHECK(estate_get_float(es, T("int"), &number) == ESTATE_TYPE);
    CHECK(strstr(estate_last_error(), "\"int\"") != NULL);
    CHECK(strstr(estate_last_error(), "c-node") != NULL);
    CHECK(estate_get_into(es, T("int"), buffer, sizeof buffer, &size) == ESTATE_TYPE);

    CHECK(estate_set_float(es, T("float"), -0.5) == ESTATE_OK);
    CHECK(estate_get_float(es, T("float"), &number) == ESTATE_OK && number == -0.5);
    CHECK(estate_set_value(es, T("float"), &given, NULL) == ESTATE_OK);
    CHECK(estate_get_float(es, T("float"), &number) == ESTATE_OK && number == 2.5);
    how.ttl_ms = 3600000;
    CHECK(estate_set_value(es, T("mortal"), &given, &how) == ESTATE_OK);
    CHECK(estate_get_float(es, T("mortal"), &number) == ESTATE_OK && number == 2.5);
    given.type = 9;
    CHECK(estate_set_value(es, T("float"), &given, NULL) == ESTATE_ARGUMENT);

    CHECK(estate_get(es, T("nowhere"), &value) == ESTATE_NOT_FOUND && value == NULL);
    CHECK(estate_get_int(es, T("nowhere"), &integer) == ESTATE_NOT_FOUND);
    CHECK(estate_delete(es, T("float")) == ESTATE_OK);
    CHECK(estate_delete(es, T("float")) == ESTATE_NOT_FOUND);
}

static void big_values(estate *es)
{
    size_t size = 10 * 1000 * 1000, got;
    char *data = malloc(size), *back = malloc(size);
    estate_value *value;
    size_t n;
    CHECK(data != NULL && back != NULL);
    for (n = 0; n < size; n++)
        data[n] = (char)(n * 7);
    CHECK(estate_set(es, T("big"), data, size) == ESTATE_OK);
    CHECK(estate_get_into(es, T("big"), back, size, &got) == ESTATE_OK && got == size);
    CHECK(memcmp(data, back, size) == 0);
    CHECK(estate_get(es, T("big"), &value) == ESTATE_OK);
    CHECK(value->bytes.size == size && memcmp(value->bytes.data, data, size) == 0);
    estate_free(value);
    CHECK(estate_delete(es, T("big")) == ESTATE_OK);
    free(data);
    free(back);
}

static void counters(estate *es)
{
    int64_t sum;
    estate_item *item;
    estate_value *value;
    CHECK(estate_add(es, T("count"), 40, NULL) == ESTATE_OK);
    CHECK(estate_add(es, T("count"), 2, &sum) == ESTATE_OK && sum == 42);
    CHECK(estate_add(es, T("text"), 1, &sum) == ESTATE_TYPE);
    CHECK(estate_set_int(es, T("full"), INT64_MAX) == ESTATE_OK);
    CHECK(estate_add(es, T("full"), 1, &sum) == ESTATE_OVERFLOW);

    CHECK(estate_item_open(es, T("count"), &item) == ESTATE_OK);
    CHECK(estate_item_add(item, -2, &sum) == ESTATE_OK && sum == 40);
    CHECK(estate_item_get_int(item, &sum) == ESTATE_OK && sum == 40);
    CHECK(estate_delete(es, T("count")) == ESTATE_OK);
    CHECK(estate_item_get_int(item, &sum) == ESTATE_NOT_FOUND);
    CHECK(estate_item_add(item, 5, NULL) == ESTATE_OK);
    CHECK(estate_get_int(es, T("count"), &sum) == ESTATE_OK && sum == 5);
    CHECK(estate_item_set(item, "ab", 2) == ESTATE_OK);
    CHECK(estate_item_get(item, &value) == ESTATE_OK && same(value->bytes, "ab", 2));
    estate_free(value);
    CHECK(estate_item_get_int(item, &sum) == ESTATE_TYPE);
    CHECK(estate_item_set_int(item, 7) == ESTATE_OK);
    CHECK(estate_item_delete(item) == ESTATE_OK);
    CHECK(estate_item_delete(item) == ESTATE_NOT_FOUND);
    estate_item_close(item);
    CHECK(estate_item_open(es, NULL, 0, &item) == ESTATE_KEY && item == NULL);
}

static void keys(estate *es)
{
    estate_texts *found;
    CHECK(estate_set_int(es, T("k/1"), 1) == ESTATE_OK);
    CHECK(estate_set_int(es, T("k/2"), 2) == ESTATE_OK);
    CHECK(estate_keys(es, T("k/*"), ESTATE_GLOB, &found) == ESTATE_OK);
    CHECK(found->count == 2 && found->texts[0].size == 3);
    estate_free(found);
    CHECK(estate_keys(es, T("k/[13]"), ESTATE_REGEX, &found) == ESTATE_OK);
    CHECK(found->count == 1 && same(found->texts[0], T("k/1")));
    estate_free(found);
    CHECK(estate_keys(es, T("none"), ESTATE_EXACT, &found) == ESTATE_OK && found->count == 0);
    estate_free(found);
    CHECK(estate_keys(es, T("("), ESTATE_REGEX, &found) == ESTATE_PATTERN && found == NULL);
    CHECK(estate_keys(es, T("k"), 7, &found) == ESTATE_ARGUMENT);
}

static int twice(void *context, const estate_entry *items, size_t count, estate_value *result)
{
    size_t n;
    ++*(int *)context;
    result->type = ESTATE_INT;
    for (n = 0; n < count; n++)
        result->integer += 2 * items[n].value.integer;
    return ESTATE_OK;
}

static int joined_keys(void *context, const estate_entry *items, size_t count,
                       estate_value *result)
{
    char *out = context;
    size_t n, size = 0;
    for (n = 0; n < count; n++) {
        memcpy(out + size, items[n].key.data, items[n].key.size);
        size += items[n].key.size;
    }
    result->type = ESTATE_STR;
    result->bytes.data = out;
    result->bytes.size = size;
    return ESTATE_OK;
}

static int nothing(void *context, const estate_entry *items, size_t count, estate_value *result)
{
    (void)context, (void)items, (void)count, (void)result;
    return ESTATE_NOT_FOUND;
}

static int failing(void *context, const estate_entry *items, size_t count, estate_value *result)
{
    (void)context, (void)items, (void)count, (void)result;
    return 77;
}

static void global(estate *es, const char *backend)
{
    estate_query query = ESTATE_QUERY;
    estate_value *value;
    estate_view *view;
    int calls = 0;
    char text[64];

    query.pattern = "k/*";
    query.pattern_size = 3;
    query.kind = ESTATE_GLOB;
    query.reduce = "sum";
    CHECK(estate_get_global(es, &query, &value) == ESTATE_OK);
    CHECK(value->type == ESTATE_INT && value->integer == 3);
    estate_free(value);
    query.reduce = "nonsense";
    CHECK(estate_get_global(es, &query, &value) == ESTATE_REDUCER && value == NULL);
    CHECK(strstr(estate_last_error(), "latest, sum") != NULL);

    query.reducer = twice;
    query.context = &calls;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_OK);
    CHECK(value->integer == 6 && calls == 1);
    estate_free(value);
    query.reducer = joined_keys;
    query.context = text;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_OK);
    CHECK(value->type == ESTATE_STR && same(value->bytes, T("k/1k/2")));
    estate_free(value);
    query.reducer = nothing;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_NOT_FOUND && value == NULL);
    query.reducer = failing;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_REDUCE && value == NULL);
    CHECK(strstr(estate_last_error(), "77") != NULL);

    CHECK(estate_register_reducer("twice", twice, &calls) == ESTATE_OK);
    CHECK(estate_register_reducer("sum", twice, &calls) == ESTATE_ARGUMENT);
    query.reducer = NULL;
    query.reduce = "twice";
    CHECK(estate_get_global(es, &query, &value) == ESTATE_OK && value->integer == 6);
    estate_free(value);
    CHECK(estate_view_global(es, &query, &view) == ESTATE_OK);
    CHECK(view->found && view->value.integer == 6 && view->complete && view->oldest_us <= 0);
    CHECK(view->item_count == 2 && same(view->items[0].key, T("k/1")));
    CHECK(same(view->items[0].node, T("c-node")) && view->items[0].version > 0);
    CHECK(view->answered_count == 1 && same(view->answered[0], T("c-node")));
    CHECK(view->missing_count == 0);
    {
        estate_value given = {ESTATE_INT, 9, 0, {0, 0}};
        estate_write how = ESTATE_WRITE;
        how.after = view->history;
        CHECK(estate_set_value(es, T("k/3"), &given, &how) == ESTATE_OK);
        how.after.size /= 2;
        CHECK(estate_set_value(es, T("k/3"), &given, &how) == ESTATE_ARGUMENT);
        CHECK(estate_delete(es, T("k/3")) == ESTATE_OK);
    }
    estate_free(view);
    CHECK(estate_register_reducer("twice", NULL, NULL) == ESTATE_OK);
    CHECK(estate_get_global(es, &query, &value) == ESTATE_REDUCER);

    query.reduce = "sum";
    query.consistency = ESTATE_SNAPSHOT;
    query.require = ESTATE_QUORUM;
    query.timeout_ms = 10000;
    if (strncmp(backend, "redis+cluster", 13) == 0) {
        /* Its shards have no common instant; one key is in one of them. */
        CHECK(estate_get_global(es, &query, &value) == ESTATE_UNSUPPORTED && value == NULL);
        query.pattern = "k/2";
        query.kind = ESTATE_EXACT;
        CHECK(estate_get_global(es, &query, &value) == ESTATE_OK && value->integer == 2);
    } else {
        CHECK(estate_get_global(es, &query, &value) == ESTATE_OK && value->integer == 3);
    }
    estate_free(value);
    query.pattern = "none";
    query.pattern_size = 4;
    query.kind = ESTATE_EXACT;
    query.consistency = ESTATE_LIVE;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_NOT_FOUND && value == NULL);
    query.size = 1;
    CHECK(estate_get_global(es, &query, &value) == ESTATE_ARGUMENT);
}

static void members(estate *es)
{
    estate_texts *names;
    estate_statistics *figures;
    CHECK(estate_members(es, &names) == ESTATE_OK);
    CHECK(names->count == 1 && same(names->texts[0], T("c-node")));
    estate_free(names);
    CHECK(estate_figures(es, &figures) == ESTATE_OK);
    estate_free(figures);
}

static void watch(estate *es)
{
    estate_watch *changes;
    estate_event *event;
    CHECK(estate_watch_open(es, T("w/*"), ESTATE_GLOB, &changes) == ESTATE_OK);
    CHECK(estate_watch_next(changes, 0, &event) == ESTATE_TIMEOUT && event == NULL);
    CHECK(estate_set_int(es, T("other"), 1) == ESTATE_OK);
    CHECK(estate_set_int(es, T("w/1"), 11) == ESTATE_OK);
    CHECK(estate_watch_next(changes, 10000, &event) == ESTATE_OK);
    CHECK(!event->gone && same(event->item.key, T("w/1")) && event->item.value.integer == 11);
    estate_free(event);
    CHECK(estate_delete(es, T("w/1")) == ESTATE_OK);
    CHECK(estate_watch_next(changes, 10000, &event) == ESTATE_OK);
    CHECK(event->gone && same(event->item.key, T("w/1")));
    estate_free(event);
    estate_watch_close(changes);
}

static void flows(void)
{
    const unsigned char a[4] = {10, 0, 0, 1}, b[4] = {10, 0, 0, 2};
    const unsigned char long_a[16] = {0x20, 1, 0xd, 0xb8, 255, 255, 255, 255,
                                      255,  255, 255, 255, 255, 255, 255, 255};
    const uint16_t vlans[2] = {4094, 4093};
    char one[ESTATE_FLOW_MAX], other[ESTATE_FLOW_MAX];
    CHECK(estate_flow(4, 6, a, 1024, b, 80, NULL, 0, one) == ESTATE_OK);
    CHECK(estate_flow(4, 6, b, 80, a, 1024, NULL, 0, other) == ESTATE_OK);
    CHECK(strcmp(one, "flow:6,10.0.0.1:1024,10.0.0.2:80") == 0 && strcmp(one, other) == 0);
    CHECK(estate_flow(6, 17, long_a, 65535, long_a, 65534, vlans, 2, one) == ESTATE_OK);
    CHECK(strstr(one, ",vlan=4094,vlan=4093") != NULL);
    CHECK(estate_flow(5, 6, a, 1, b, 1, NULL, 0, one) == ESTATE_ARGUMENT);
    CHECK(estate_flow(4, 6, a, 1, b, 1, vlans, 3, one) == ESTATE_ARGUMENT);
}

static void arguments(estate *es)
{
    char longest[ESTATE_KEY_MAX + 1];
    estate_text list[1] = {{"not a flow", 10}};
    estate_options options = ESTATE_OPTIONS;
    estate *none;
    int status;
    memset(longest, 'k', sizeof longest);
    CHECK(estate_set_int(es, longest, ESTATE_KEY_MAX, 1) == ESTATE_OK);
    CHECK(estate_delete(es, longest, ESTATE_KEY_MAX) == ESTATE_OK);
    CHECK(estate_set_int(es, longest, ESTATE_KEY_MAX + 1, 1) == ESTATE_KEY);
    CHECK(estate_set_int(es, T("\xff"), 1) == ESTATE_KEY);
    CHECK(estate_set_int(NULL, T("k"), 1) == ESTATE_ARGUMENT);
    CHECK(estate_set(es, T("k"), NULL, 1) == ESTATE_ARGUMENT);
    CHECK(estate_get(es, T("k"), NULL) == ESTATE_ARGUMENT);
    CHECK(estate_take_flows(es, list, 1, "nobody", 1, NULL) == ESTATE_ARGUMENT);
    CHECK(estate_take_keys(es, list, 1, NULL, 1, NULL) == ESTATE_ARGUMENT);
    CHECK(estate_take_keys(es, list, 1, "nobody", 1, NULL) < 0);
    CHECK(estate_take_abort(es, 1) == ESTATE_NOT_FOUND);
    CHECK(estate_take_abort(NULL, 1) == ESTATE_ARGUMENT);
    CHECK(estate_declare_dead(es, NULL, NULL) == ESTATE_ARGUMENT);
    CHECK(estate_on_global_read(es, NULL, NULL) == ESTATE_ARGUMENT);
    CHECK(estate_open(&options, &none) == ESTATE_ARGUMENT && none == NULL);
    options.cluster = options.node = "x";
    options.backend = "nonsense";
    CHECK(estate_open(&options, &none) == ESTATE_ARGUMENT && none == NULL);
    options.backend = "local";
    options.relay = 1;
    options.tls_ca = "x";
    CHECK(estate_open(&options, &none) == ESTATE_ARGUMENT && none == NULL);
    for (status = -21; status <= 3; status++)
        CHECK(strcmp(estate_strerror(status), estate_strerror(1000)) != 0);
    CHECK(estate_version()[0] != '\0');
    estate_free(NULL);
    estate_item_close(NULL);
    estate_watch_close(NULL);
    estate_close(NULL);
}

int main(int argc, char **argv)
{
    const char *backend = argc > 1 ? argv[1] : "local";
    estate *es = joined(backend, "c-node");
    estate_item *item;
    int64_t sum;
    values(es);
    big_values(es);
    counters(es);
    keys(es);
    global(es, backend);
    members(es);
    watch(es);
    flows();
    arguments(es);
    CHECK(estate_item_open(es, T("last"), &item) == ESTATE_OK);
    estate_close(es);
    CHECK(estate_item_add(item, 1, &sum) == ESTATE_CLOSED);
    estate_item_close(item);
    puts("contract holds");
    return 0;
}
