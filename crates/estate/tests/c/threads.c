/* Many threads on one estate: counters lose nothing, handles survive deletes, errors are a
 * thread's own. */
#include "check.h"
#include <pthread.h>

enum { THREADS = 4, ROUNDS = 20000 };

static estate *es;
static estate_item *shared;

static void *work(void *number)
{
    char key[16], wanted[24];
    int64_t sum;
    size_t size;
    int n, written = snprintf(key, sizeof key, "bad%d\xff", *(int *)number);
    CHECK(estate_set_int(es, key, (size_t)written, 1) == ESTATE_KEY);
    snprintf(wanted, sizeof wanted, "bad%d", *(int *)number);
    for (n = 0; n < ROUNDS; n++) {
        CHECK(estate_item_add(shared, 1, NULL) == ESTATE_OK);
        CHECK(estate_add(es, T("by key"), 1, &sum) == ESTATE_OK);
        CHECK(estate_set(es, T("contended"), key, (size_t)written) == ESTATE_OK);
        if (n % 64 == 0)
            CHECK(estate_delete(es, T("contended")) >= 0);
        CHECK(estate_get_into(es, T("contended"), key + 8, 8, &size) >= 0);
        CHECK(strstr(estate_last_error(), wanted) != NULL);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS], n;
    int64_t sum;
    es = joined("local", "c-node");
    CHECK(estate_item_open(es, T("by handle"), &shared) == ESTATE_OK);
    for (n = 0; n < THREADS; n++) {
        numbers[n] = n;
        CHECK(pthread_create(&threads[n], NULL, work, &numbers[n]) == 0);
    }
    for (n = 0; n < THREADS; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
    CHECK(estate_get_int(es, T("by handle"), &sum) == ESTATE_OK && sum == THREADS * ROUNDS);
    CHECK(estate_get_int(es, T("by key"), &sum) == ESTATE_OK && sum == THREADS * ROUNDS);
    estate_item_close(shared);
    estate_close(es);
    puts("threads agree");
    return 0;
}
