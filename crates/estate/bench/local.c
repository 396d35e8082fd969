/*
 * What local state costs in C: ns per operation (p50), threads together, bytes per item; beside
 * it a plain C hash table behind one pthread mutex, on the same keys, in the same run. Prints JSON.
 *
 *   cc -std=gnu11 -O2 local.c $(pkg-config --cflags --libs estate) -lpthread -o local && ./local [URL]
 *
 * URL: a Redis, redis+unix:///PATH; the same set and get are measured on it, too.
 *
 * Keys have 20 bytes, values 64. Keys are visited in an order that no prefetcher knows. Each p50 is
 * the median over batches of the mean in a batch of 64, as an operation is shorter than a reading
 * of the clock.
 */
#include <estate.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY = 20, VALUE = 64, BATCH = 64, BATCHES = 20000, FEW = 300, MOST = 1000000 };

static char (*keys)[KEY];
static uint32_t *order; /* a random permutation of the keys in use */
static size_t count;
static char value[VALUE];

static double now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void must(int status)
{
    if (status < 0) {
        fprintf(stderr, "local: %s\n", estate_last_error());
        exit(1);
    }
}

/* The yardstick: chained hash table, FNV-1a, one mutex. */
struct entry {
    struct entry *next;
    char key[KEY], value[VALUE];
};

static struct entry **slots;
static size_t slot_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static struct entry **slot(const char *key)
{
    uint64_t hash = 14695981039346656037u;
    size_t n;
    for (n = 0; n < KEY; n++)
        hash = (hash ^ (unsigned char)key[n]) * 1099511628211u;
    return &slots[(hash ^ hash >> 32) & (slot_count - 1)];
}

static struct entry *find(const char *key)
{
    struct entry *at;
    for (at = *slot(key); at != NULL && memcmp(at->key, key, KEY) != 0; at = at->next)
        ;
    return at;
}

static void plain_set(const char *key)
{
    struct entry *at;
    pthread_mutex_lock(&mutex);
    at = find(key);
    if (at == NULL) {
        struct entry **head = slot(key);
        at = malloc(sizeof *at);
        memcpy(at->key, key, KEY);
        at->next = *head;
        *head = at;
    }
    memcpy(at->value, value, VALUE);
    pthread_mutex_unlock(&mutex);
}

static void plain_get(const char *key)
{
    char out[VALUE];
    struct entry *at;
    pthread_mutex_lock(&mutex);
    at = find(key);
    if (at != NULL)
        memcpy(out, at->value, VALUE);
    pthread_mutex_unlock(&mutex);
    __asm__ volatile("" : : "r"(out) : "memory");
}

/* What is measured: each thread's own place. */
static __thread estate *es;
static __thread estate_item *counter;

static void set(const char *key)
{
    must(estate_set(es, key, KEY, value, VALUE));
}

static void get(const char *key)
{
    char out[VALUE];
    size_t size;
    must(estate_get_into(es, key, KEY, out, VALUE, &size));
    __asm__ volatile("" : : "r"(out) : "memory");
}

static void add(const char *key)
{
    (void)key;
    must(estate_item_add(counter, 1, NULL));
}

static int upwards(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double p50_of(void (*operation)(const char *), size_t batches)
{
    static double times[BATCHES];
    size_t batch, n, at = 0;
    for (batch = 0; batch < batches; batch++) {
        double start = now_ns();
        for (n = 0; n < BATCH; n++) {
            operation(keys[order[at]]);
            at = at + 1 == count ? 0 : at + 1;
        }
        times[batch] = (now_ns() - start) / BATCH;
    }
    qsort(times, batches, sizeof times[0], upwards);
    return times[batches / 2];
}

static double p50(void (*operation)(const char *))
{
    return p50_of(operation, BATCHES);
}

static void use(size_t wanted)
{
    size_t n;
    uint64_t lots = 88172645463325252u;
    count = wanted;
    for (n = 0; n < count; n++)
        order[n] = (uint32_t)n;
    for (n = count - 1; n > 0; n--) {
        size_t other;
        uint32_t kept = order[n];
        lots ^= lots << 13, lots ^= lots >> 7, lots ^= lots << 17;
        other = lots % (n + 1);
        order[n] = order[other];
        order[other] = kept;
    }
}

static void latencies(size_t wanted)
{
    size_t n;
    use(wanted);
    for (n = 0; n < count; n++) {
        set(keys[n]);
        plain_set(keys[n]);
    }
    printf("{\"keys\": %zu, \"set\": %.1f, \"get\": %.1f, \"plain_set\": %.1f, \"plain_get\": %.1f}",
           count, p50(set), p50(get), p50(plain_set), p50(plain_get));
}

/* Million operations a second of some threads together: all at the same keys; each at keys of its
 * own in the same estate; each in an estate of its own, which is what the machine can do. */
enum sharing { SHARED, OWN_KEYS, APART };

struct job {
    void (*operation)(const char *);
    estate *es;
    size_t first, start, end;
};

enum { ROUNDS = 2000000, THREADS = 2, EACH = 10000 };
static atomic_int ready;

static void *work(void *argument)
{
    struct job *job = argument;
    size_t n, at = job->start;
    char name[32];
    es = job->es;
    must(estate_item_open(es, name, (size_t)snprintf(name, sizeof name, "bench/of/%zu", job->first),
                          &counter));
    atomic_fetch_sub(&ready, 1);
    while (atomic_load(&ready) > 0)
        ;
    for (n = 0; n < ROUNDS; n++) {
        job->operation(keys[order[at]]);
        at = at + 1 == job->end ? job->first : at + 1;
    }
    estate_item_close(counter);
    return NULL;
}

static estate *opened(const char *node)
{
    estate_options options = ESTATE_OPTIONS;
    estate *fresh;
    options.cluster = "bench";
    options.node = node;
    options.backend = "local";
    must(estate_open(&options, &fresh));
    return fresh;
}

static double throughput(void (*operation)(const char *), enum sharing sharing, size_t threads)
{
    static estate *apart[THREADS];
    pthread_t ids[THREADS];
    struct job jobs[THREADS];
    double start;
    size_t n, key;
    for (n = 0; n < threads; n++) {
        struct job *job = &jobs[n];
        job->operation = operation;
        job->first = sharing == SHARED ? 0 : n * EACH;
        job->end = job->first + EACH;
        job->start = sharing == SHARED ? EACH / threads * n : job->first;
        job->es = es;
        if (sharing == APART) {
            estate *here = es;
            if (apart[n] == NULL) {
                es = apart[n] = opened(n ? "apart-1" : "apart-0");
                for (key = job->first; key < job->end; key++)
                    set(keys[order[key]]);
                es = here;
            }
            job->es = apart[n];
        }
    }
    atomic_store(&ready, (int)threads);
    start = now_ns();
    for (n = 0; n < threads; n++)
        pthread_create(&ids[n], NULL, work, &jobs[n]);
    for (n = 0; n < threads; n++)
        pthread_join(ids[n], NULL);
    return (double)threads * ROUNDS / (now_ns() - start) * 1e3;
}

static void together(void)
{
    static const char *const names[] = {"shared", "own", "apart"};
    int sharing;
    size_t threads;
    use(THREADS * EACH);
    for (threads = 1; threads <= THREADS; threads++)
        for (sharing = SHARED; sharing <= APART; sharing++) {
            printf("%s{\"threads\": %zu, \"keys\": \"%s\", \"set\": %.1f, \"get\": %.1f, \"add\": %.1f",
                   threads + (size_t)sharing > 1 ? ", " : "", threads, names[sharing],
                   throughput(set, sharing, threads), throughput(get, sharing, threads),
                   throughput(add, sharing, threads));
            if (sharing != APART)
                printf(", \"plain_set\": %.1f, \"plain_get\": %.1f",
                       throughput(plain_set, sharing, threads), throughput(plain_get, sharing, threads));
            fputs("}", stdout);
        }
}

static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)info.uordblks + (double)info.hblkhd;
}

/* Allocator bytes per item beyond key and value. */
static double overhead(size_t items)
{
    estate *fresh = opened("memory");
    double before, beyond;
    size_t n;
    before = allocated();
    for (n = 0; n < items; n++)
        must(estate_set(fresh, keys[n], KEY, value, VALUE));
    beyond = (allocated() - before) / (double)items - KEY - VALUE;
    estate_close(fresh);
    return beyond;
}

/* The same operations on the same keys, of a server. */
static void redis(const char *url)
{
    estate_options options = ESTATE_OPTIONS;
    estate *here = es;
    estate_item *ours = counter;
    double set_ns, get_ns, add_ns;
    options.cluster = "bench";
    options.node = "redis";
    options.backend = url;
    must(estate_open(&options, &es));
    use(1000);
    set_ns = p50_of(set, FEW);
    get_ns = p50_of(get, FEW);
    must(estate_item_open(es, "bench/packets", 13, &counter));
    add_ns = p50_of(add, FEW);
    estate_item_close(counter);
    estate_close(es);
    es = here;
    counter = ours;
    printf(", \"redis\": {\"redis_set\": %.1f, \"redis_get\": %.1f, \"redis_add\": %.1f, ", set_ns, get_ns,
           add_ns);
    printf("\"set\": %.1f, \"get\": %.1f, \"add\": %.1f}", p50(set), p50(get), p50(add));
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {1000, 10000, 100000, MOST};
    size_t n;
    keys = malloc((size_t)MOST * KEY);
    order = malloc((size_t)MOST * sizeof *order);
    slot_count = 1u << 20;
    slots = calloc(slot_count, sizeof *slots);
    for (n = 0; n < MOST; n++) {
        char text[KEY + 1];
        snprintf(text, sizeof text, "bench/counter/%06zu", n);
        memcpy(keys[n], text, KEY);
    }
    /* One arena: mallinfo2 knows no other. */
    mallopt(M_ARENA_MAX, 1);
    es = opened("local");
    must(estate_item_open(es, "bench/packets", 13, &counter));
    use(1000);
    printf("{\"key_bytes\": %d, \"value_bytes\": %d, \"handle_add_ns\": %.1f, \"p50_ns\": [", KEY,
           VALUE, p50(add));
    for (n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
        fputs(n ? ", " : "", stdout);
        latencies(sizes[n]);
    }
    fputs("], \"million_per_second\": [", stdout);
    together();
    fputs("]", stdout);
    if (argc > 1)
        redis(argv[1]);
    printf(", \"bytes_per_item_beyond_key_and_value\": {\"100000\": %.1f, \"1000000\": %.1f}}\n",
           overhead(100000), overhead(MOST));
    estate_item_close(counter);
    estate_close(es);
    return 0;
}
