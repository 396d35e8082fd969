/* The packet counter of docs/estate.md in C; it counts together with the one in Python. */

#include <arpa/inet.h>
#include <estate.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    estate_options options = ESTATE_OPTIONS;
    options.cluster = "counter";
    options.node = argc > 2 ? argv[1] : "";
    options.listen = argc > 2 ? argv[2] : "";
    options.peers = argc > 3 ? argv[3] : "";
    estate *es;
    estate_item *seen;
    if (estate_open(&options, &es) || estate_item_open(es, "packets", 7, &seen)) {
        fprintf(stderr, "%s: %s\n", argv[0], estate_last_error());
        return 1;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}, from;
    socklen_t size = sizeof at;
    int packets = socket(AF_INET, SOCK_DGRAM, 0);
    bind(packets, (struct sockaddr *)&at, size);
    getsockname(packets, (struct sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        char data[2048];
        size = sizeof from;
        ssize_t length = recvfrom(packets, data, sizeof data, 0, (struct sockaddr *)&from, &size);
        estate_item_add(seen, 1, NULL); /* the packet path: no network, no lock of others */
        if (length != 6 || memcmp(data, "total?", 6) != 0)
            continue;
        estate_query query = ESTATE_QUERY;
        query.pattern = "packets";
        query.pattern_size = 7;
        query.reduce = "sum";
        estate_value *total;
        if (estate_get_global(es, &query, &total) == ESTATE_OK) {
            int digits = snprintf(data, sizeof data, "%" PRId64, total->integer);
            sendto(packets, data, (size_t)digits, 0, (struct sockaddr *)&from, size);
        } else {
            fprintf(stderr, "%s\n", estate_last_error()); /* who has not answered, say */
        }
        estate_free(total);
    }
}
