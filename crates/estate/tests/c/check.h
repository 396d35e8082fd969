/* What the C tests need: a check that names what failed, and texts with their sizes. */
#ifndef CHECK_H
#define CHECK_H

#include <estate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, \
                    #condition, estate_last_error());                                        \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

/* A literal and its size, as two arguments. */
#define T(literal) (literal), (sizeof(literal) - 1)

static inline int same(estate_text text, const char *data, size_t size)
{
    return text.size == size && memcmp(text.data, data, size) == 0 && text.data[size] == '\0';
}

/* Whether the backend is a server, or some, which other tests may use at the same time. */
static inline int at_servers(const char *backend)
{
    return strncmp(backend, "redis", 5) == 0;
}

/* A name for a cluster of this process's own. */
static inline const char *own_cluster(void)
{
    static char name[32];
    snprintf(name, sizeof name, "c-%ld", (long)getpid());
    return name;
}

static inline estate *joined(const char *backend, const char *node)
{
    estate_options options = ESTATE_OPTIONS;
    estate *es = NULL;
    options.cluster = own_cluster();
    options.node = node;
    options.backend = backend;
    options.timeout_ms = 10000;
    CHECK(estate_open(&options, &es) == ESTATE_OK);
    CHECK(es != NULL);
    return es;
}

#endif
