/*
 * A network function in C: counts packets and bytes per flow, and answers for the whole group.
 *
 *   cc flow_counter.c $(pkg-config --cflags --libs estate) -o flow_counter
 *   ./flow_counter eth0 counters nf1 0.0.0.0:7600
 *   ./flow_counter eth0 counters nf2 0.0.0.0:7600 10.0.0.1:7600        (on another machine)
 *
 * On the packet path there is one look into a table of the function's own and two additions through
 * item handles, some 10 ns each. The counters are flow state: both directions of a conversation have
 * one, and `estate_take_flows` moves them when the traffic moves. SIGUSR1 prints what all instances
 * together have counted, in all and for each flow; SIGINT and SIGTERM end it with the same. Needs
 * CAP_NET_RAW.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <estate.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { SLOTS = 1 << 16 };

struct flow {
    struct flow *next;
    unsigned char family, protocol;
    unsigned char a[16], b[16];
    uint16_t port_a, port_b;
    estate_item *packets, *bytes;
};

static struct flow *flows[SLOTS];
static volatile sig_atomic_t stop, report;

static void on_signal(int number)
{
    if (number == SIGUSR1)
        report = 1;
    else
        stop = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "flow_counter: %s: %s\n", what, estate_last_error());
    exit(1);
}

/* Reads the 5-tuple of an IP packet; other packets have none. */
static int parse(const unsigned char *packet, size_t size, struct flow *flow)
{
    size_t header, length;
    memset(flow, 0, sizeof *flow);
    if (size >= 20 && packet[0] >> 4 == 4) {
        flow->family = 4;
        flow->protocol = packet[9];
        length = 4;
        memcpy(flow->a, packet + 12, length);
        memcpy(flow->b, packet + 16, length);
        header = (size_t)(packet[0] & 15) * 4;
        if (packet[6] & 0x1f || packet[7]) /* a later fragment has no ports */
            header = size;
    } else if (size >= 40 && packet[0] >> 4 == 6) {
        flow->family = 6;
        flow->protocol = packet[6];
        length = 16;
        memcpy(flow->a, packet + 8, length);
        memcpy(flow->b, packet + 24, length);
        header = 40;
    } else {
        return 0;
    }
    if ((flow->protocol == 6 || flow->protocol == 17) && size >= header + 4) {
        flow->port_a = (uint16_t)(packet[header] << 8 | packet[header + 1]);
        flow->port_b = (uint16_t)(packet[header + 2] << 8 | packet[header + 3]);
    }
    return 1;
}

static int same(const struct flow *x, const struct flow *y)
{
    return x->family == y->family && x->protocol == y->protocol && x->port_a == y->port_a &&
           x->port_b == y->port_b && memcmp(x->a, y->a, 16) == 0 && memcmp(x->b, y->b, 16) == 0;
}

static estate_item *counter(estate *es, const char *flow, const char *name)
{
    char key[ESTATE_FLOW_MAX + 16];
    estate_item *item;
    int size = snprintf(key, sizeof key, "%s/%s", flow, name);
    if (estate_item_open(es, key, (size_t)size, &item) != ESTATE_OK)
        fail(key);
    return item;
}

/* The flow's counters; resolved when its first packet comes. */
static struct flow *lookup(estate *es, const struct flow *wanted)
{
    uint32_t hash = wanted->protocol;
    struct flow *flow;
    char text[ESTATE_FLOW_MAX];
    size_t n;
    for (n = 0; n < 16; n++)
        hash = hash * 31 + (wanted->a[n] ^ (uint32_t)wanted->b[n] << 8);
    hash = (hash * 31 + wanted->port_a) * 31 + wanted->port_b;
    hash ^= hash >> 16;
    for (flow = flows[hash % SLOTS]; flow != NULL; flow = flow->next)
        if (same(flow, wanted))
            return flow;
    flow = malloc(sizeof *flow);
    if (flow == NULL)
        return NULL;
    *flow = *wanted;
    if (estate_flow(flow->family, flow->protocol, flow->a, flow->port_a, flow->b, flow->port_b, NULL,
                    0, text) != ESTATE_OK)
        fail("a flow");
    flow->packets = counter(es, text, "packets");
    flow->bytes = counter(es, text, "bytes");
    flow->next = flows[hash % SLOTS];
    flows[hash % SLOTS] = flow;
    return flow;
}

/* A reducer: gets all matching items of all instances, in the order of their keys. Prints each flow
 * with the sum of its items, and gives the sum of all. */
static int each_flow(void *context, const estate_entry *items, size_t count, estate_value *result)
{
    int64_t flow = 0;
    size_t n;
    int *printed = context;
    result->type = ESTATE_INT;
    for (n = 0; n < count; n++) {
        const estate_text key = items[n].key;
        const int last = n + 1 == count || items[n + 1].key.size != key.size ||
                         memcmp(items[n + 1].key.data, key.data, key.size) != 0;
        flow += items[n].value.integer;
        result->integer += items[n].value.integer;
        if (last) {
            printf("%s\"%.*s\": %" PRId64, (*printed)++ > 0 ? ", " : "",
                   (int)(key.size - strlen("/packets")), key.data, flow);
            flow = 0;
        }
    }
    return ESTATE_OK;
}

static int64_t all_instances(estate *es, const char *pattern, estate_reducer reducer,
                             estate_view **view)
{
    estate_query query = ESTATE_QUERY;
    int printed = 0;
    query.pattern = pattern;
    query.pattern_size = strlen(pattern);
    query.kind = ESTATE_GLOB;
    query.reduce = "sum";
    query.reducer = reducer;
    query.context = &printed;
    if (estate_view_global(es, &query, view) != ESTATE_OK)
        fail("global read");
    return (*view)->found ? (*view)->value.integer : 0;
}

static void print(estate *es)
{
    estate_view *packets, *bytes;
    int64_t sum, size;
    printf("{\"flows\": {");
    sum = all_instances(es, "flow:*/packets", each_flow, &packets);
    size = all_instances(es, "flow:*/bytes", NULL, &bytes);
    printf("}, \"packets\": %" PRId64 ", \"bytes\": %" PRId64 ", \"answered\": %zu, \"missing\": %zu}\n",
           sum, size, packets->answered_count, packets->missing_count);
    fflush(stdout);
    estate_free(packets);
    estate_free(bytes);
}

static int packet_socket(const char *interface)
{
    const struct timeval moment = {0, 100000}; /* signals are looked at ten times a second */
    struct sockaddr_ll address;
    int fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
    memset(&address, 0, sizeof address);
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = (int)if_nametoindex(interface);
    if (fd < 0 || address.sll_ifindex == 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        fprintf(stderr, "flow_counter: %s: %s; does it exist, and have you CAP_NET_RAW?\n",
                interface, strerror(errno));
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    static unsigned char packet[65536];
    estate_options options = ESTATE_OPTIONS;
    struct sigaction action;
    struct flow seen, *flow;
    estate *es;
    int fd, n;
    if (argc < 4) {
        fprintf(stderr, "usage: %s INTERFACE CLUSTER NODE [LISTEN [PEERS]]\n", argv[0]);
        return 2;
    }
    options.cluster = argv[2];
    options.node = argv[3];
    options.listen = argc > 4 ? argv[4] : NULL;
    options.peers = argc > 5 ? argv[5] : NULL;
    if (estate_open(&options, &es) != ESTATE_OK)
        fail("joining");
    fd = packet_socket(argv[1]);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    fprintf(stderr, "counting on %s\n", argv[1]);
    while (!stop) {
        struct sockaddr_ll from;
        socklen_t from_size = sizeof from;
        ssize_t size = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &from_size);
        if (report) {
            report = 0;
            print(es);
        }
        if (size < 0 && errno != EINTR && errno != EAGAIN) {
            fprintf(stderr, "flow_counter: %s: %s\n", argv[1], strerror(errno));
            break;
        }
        /* What goes out of an interface is seen as well: count it on its way in only. */
        if (size < 0 || from.sll_pkttype == PACKET_OUTGOING || !parse(packet, (size_t)size, &seen))
            continue;
        flow = lookup(es, &seen);
        /* While its state moves away a flow is frozen; its packets go the other way then. */
        if (flow != NULL && estate_item_add(flow->packets, 1, NULL) == ESTATE_OK)
            estate_item_add(flow->bytes, size, NULL);
    }
    print(es);
    for (n = 0; n < SLOTS; n++) {
        while ((flow = flows[n]) != NULL) {
            flows[n] = flow->next;
            estate_item_close(flow->packets);
            estate_item_close(flow->bytes);
            free(flow);
        }
    }
    close(fd);
    estate_close(es);
    return 0;
}
