/*
 * What global reads cost in C, µs (p50): of one key, live and from a replica that is kept here. Joins a
 * cluster whose members are there already, and prints JSON.
 *
 *   cc -std=gnu11 -O2 global.c $(pkg-config --cflags --libs estate) -o global
 *   ./global CLUSTER HOST:PORT INSTANCES SECONDS
 *
 * Every read is by estate_get_global, complete, and its value is looked at. A live read is timed by
 * itself; reads of the replica in batches, as they are shorter than a reading of the clock.
 */
#include <estate.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 64, MOST = 1000000 };

/* One instance a process; each has it, with the value 1. */
static const char KEY[] = "packets/0";

static estate *es;
static int64_t expected;
static double times[MOST];

static double now_us(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

static int upwards(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fail(const char *what)
{
    fprintf(stderr, "global: %s: %s\n", what, estate_last_error());
    exit(1);
}

static int64_t ask(const estate_query *query)
{
    estate_value *sum;
    int64_t found;
    if (estate_get_global(es, query, &sum) != ESTATE_OK)
        fail("a read");
    found = sum->integer;
    estate_free(sum);
    return found;
}

static double p50(const estate_query *query, int batch, double seconds)
{
    double until = now_us() + seconds * 1e6, start = now_us();
    size_t count = 0;
    while (start < until && count < MOST) {
        int n;
        for (n = 0; n < batch; n++)
            if (ask(query) != expected)
                fail("the sum is not that of all instances");
        times[count] = (now_us() - start) / batch;
        count += 1;
        start = now_us();
    }
    qsort(times, count, sizeof times[0], upwards);
    return times[count / 2];
}

int main(int argc, char **argv)
{
    estate_options options = ESTATE_OPTIONS;
    estate_query query = ESTATE_QUERY;
    double seconds, live, cached;
    struct timespec pause = {0, 10000000};
    int tries;
    if (argc != 5) {
        fprintf(stderr, "usage: %s CLUSTER HOST:PORT INSTANCES SECONDS\n", argv[0]);
        return 2;
    }
    options.cluster = argv[1];
    options.node = "c";
    options.listen = "127.0.0.1:0";
    options.peers = argv[2];
    expected = atoi(argv[3]);
    seconds = atof(argv[4]);
    if (estate_open(&options, &es) != ESTATE_OK)
        fail("opening");
    if (estate_set_int(es, KEY, sizeof KEY - 1, 1) != ESTATE_OK)
        fail("setting");
    query.pattern = KEY;
    query.pattern_size = sizeof KEY - 1;
    query.reduce = "sum";
    for (tries = 0; ask(&query) != expected && tries < 3000; tries++)
        nanosleep(&pause, NULL);
    live = p50(&query, 1, seconds);
    query.consistency = ESTATE_CACHED;
    query.max_age_ms = 1000;
    cached = p50(&query, BATCH, seconds);
    printf("{\"instances\": %s, \"live_us\": %.2f, \"cached_us\": %.3f}\n", argv[3], live, cached);
    estate_close(es);
    return 0;
}
