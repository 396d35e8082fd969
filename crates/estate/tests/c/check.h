/* What the C tests need: a check that names what failed, and texts with their sizes. */
#ifndef CHECK_H
#define CHECK_H

#include <estate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static inline estate *joined(const char *backend, const char *node)
{
    estate_options options = ESTATE_OPTIONS;
    estate *es = NULL;
    options.cluster = "c-contract";
    options.node = node;
    options.backend = backend;
    CHECK(estate_open(&options, &es) == ESTATE_OK);
    CHECK(es != NULL);
    return es;
}

#endif
