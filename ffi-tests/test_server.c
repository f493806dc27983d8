/* The server in this process, spoken to over real sockets. */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static kvs_server *start_server(kvs_store *store, uint16_t port) {
    kvs_server *server = NULL;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)port);
    CHECK_OK(kvs_server_start(store, address, NULL, &server));
    return server;
}

static uint16_t port_of(const kvs_server *server) {
    uint16_t port = 0;
    CHECK_OK(kvs_server_port(server, &port));
    CHECK(port != 0);
    return port;
}

/* A socket connected to the server, which gives up waiting after some seconds. */
static int dial(uint16_t port) {
    struct sockaddr_in to;
    struct timeval limit = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

static void say(int fd, const char *text) {
    CHECK_NUMBER(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
}

/* Reads one line, or up to the end of file, without the newline. */
static void hear(int fd, char *reply, size_t capacity) {
    size_t len = 0;
    while (len < capacity - 1 && recv(fd, reply + len, 1, 0) == 1 && reply[len] != '\n') len++;
    reply[len] = '\0';
}

#define CHECK_REPLY(fd, request, expected) check_reply((fd), (request), (expected), __LINE__)

static void check_reply(int fd, const char *request, const char *expected, int line) {
    char reply[512];
    say(fd, request);
    hear(fd, reply, sizeof reply);
    if (strcmp(reply, expected) != 0)
        fail(__FILE__, line, "%s is answered by %s, not %s", request, reply, expected);
}

/* As the first clients do it: one request, half-close, read to the end of file. */
static void check_one_shot(uint16_t port, const char *request, const char *expected) {
    char reply[512];
    size_t len = 0;
    ssize_t got;
    int fd = dial(port);

    if (!CHECK(fd >= 0)) return;
    say(fd, request);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    while (len < sizeof reply - 1 && (got = recv(fd, reply + len, sizeof reply - 1 - len, 0)) > 0)
        len += (size_t)got;
    reply[len] = '\0';
    if (strcmp(reply, expected) != 0)
        fail(__FILE__, __LINE__, "%s is answered by %s, not %s", request, reply, expected);
    close(fd);
}

/* Whether the other side has closed: no byte is left to read. */
static int at_end(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

static void server_and_program_share_one_store(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    int fd = dial(port_of(server));

    CHECK_OK(kvs_set(store, BYTES("from C"), BYTES("1")));
    CHECK_REPLY(fd, "{\"Get\":{\"key\":\"from C\"}}\n", "{\"Ok\":\"1\"}");
    CHECK_REPLY(fd, "{\"Set\":{\"key\":\"from afar\",\"value\":\"2\"}}\n", "{\"Ok\":null}");
    CHECK_VALUE(store, "from afar", "2");
    CHECK_REPLY(fd, "{\"Remove\":{\"key\":\"from C\"}}\n", "{\"Ok\":null}");
    CHECK_REPLY(fd, "{\"Remove\":{\"key\":\"from C\"}}\n", "{\"Err\":\"Key not found\"}");
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("from C")));
    CHECK_REPLY(fd, "{\"Get\":{\"key\":\"from C\"}}\n", "{\"Ok\":null}");
    close(fd);
    check_one_shot(port_of(server), "{\"Get\":{\"key\":\"from afar\"}}", "{\"Ok\":\"2\"}");

    CHECK_OK(kvs_server_stop(server, 1000));
    kvs_server_free(server);
    CHECK_VALUE(store, "from afar", "2");
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
}

static void address_tells_the_real_port(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    char expected[64], text[64];
    size_t len = 0;
    int expected_len = snprintf(expected, sizeof expected, "127.0.0.1:%u", port_of(server));

    CHECK_OK(kvs_server_address(server, text, sizeof text, &len));
    CHECK_NUMBER(expected_len, len);
    CHECK(strcmp(text, expected) == 0);
    text[0] = '#';
    /* Room for the text, and none for its end. */
    CHECK_STATUS(KVS_TOO_SMALL, kvs_server_address(server, text, (size_t)expected_len, &len));
    CHECK(text[0] == '#');
    CHECK_NUMBER(expected_len, len);
    CHECK_OK(kvs_server_address(server, text, (size_t)expected_len + 1, &len));
    CHECK_STATUS(KVS_TOO_SMALL, kvs_server_address(server, NULL, 0, &len));
    kvs_server_free(server);
    kvs_store_free(store);
}

static void addresses_that_cannot_work_are_refused(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0), *second = NULL;
    char taken[32];

    snprintf(taken, sizeof taken, "127.0.0.1:%u", port_of(server));
    CHECK_FAILS(KVS_ERR_NET, taken, kvs_server_start(store, taken, NULL, &second));
    CHECK(kvs_last_os_error() != 0);
    CHECK_FAILS(KVS_ERR_NET, "nonsense", kvs_server_start(store, "nonsense", NULL, &second));
    CHECK_FAILS(KVS_ERR_NOT_UTF8, "address", kvs_server_start(store, "\xff", NULL, &second));
    CHECK(second == NULL);
    kvs_server_free(server);
    kvs_store_free(store);
}

static void every_pool_serves(const char *dir) {
    static const char *const pools[] = {"shared-queue", "rayon", "naive"};
    kvs_store *store = open_store(dir);
    kvs_options *options = kvs_options_new();
    kvs_server *server = NULL;
    size_t i;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_THREADS, 2));
    for (i = 0; i < 3; i++) {
        int fd;
        CHECK_OK(kvs_options_set_str(options, KVS_OPT_SERVER_POOL, pools[i], strlen(pools[i])));
        if (!CHECK_OK(kvs_server_start(store, "127.0.0.1:0", options, &server))) continue;
        fd = dial(port_of(server));
        CHECK_REPLY(fd, "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n", "{\"Ok\":null}");
        close(fd);
        CHECK_OK(kvs_server_stop(server, 1000));
        kvs_server_free(server);
    }
    CHECK_OK(kvs_options_set_str(options, KVS_OPT_SERVER_POOL, "puddle", 6));
    CHECK_FAILS(KVS_ERR_INVALID, "pool", kvs_server_start(store, "127.0.0.1:0", options, &server));
    CHECK(server == NULL);
    kvs_options_free(options);
    kvs_store_free(store);
}

static void a_socket_that_listens_can_be_handed_over(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_options *options = kvs_options_new();
    kvs_server *server = NULL;
    struct sockaddr_in at;
    socklen_t at_len = sizeof at;
    int client, fd = socket(AF_INET, SOCK_STREAM, 0);

    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &at_len) == 0);
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_LISTEN_FD, (uint64_t)fd));
    CHECK_FAILS(KVS_ERR_INVALID, "listener", kvs_server_start(store, "", options, &server));

    CHECK(listen(fd, 5) == 0);
    CHECK_OK(kvs_server_start(store, "", options, &server));
    CHECK_NUMBER(ntohs(at.sin_port), port_of(server));
    close(fd); /* The server has its own. */
    client = dial(ntohs(at.sin_port));
    CHECK_REPLY(client, "{\"Get\":{\"key\":\"k\"}}\n", "{\"Ok\":null}");
    close(client);
    kvs_server_free(server);

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_LISTEN_FD, 1000000));
    CHECK_FAILS(KVS_ERR_NET, "1000000", kvs_server_start(store, "", options, &server));
    CHECK_NUMBER(EBADF, kvs_last_os_error());
    kvs_options_free(options);
    kvs_store_free(store);
}

static void connections_over_the_limit_are_told_so(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_options *options = kvs_options_new();
    kvs_server *server = NULL;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_CONNECTIONS_MAX, 1));
    if (CHECK_OK(kvs_server_start(store, "127.0.0.1:0", options, &server))) {
        char reply[512];
        int second, first = dial(port_of(server));
        CHECK_REPLY(first, "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n", "{\"Ok\":null}");
        second = dial(port_of(server));
        say(second, "{\"Get\":{\"key\":\"k\"}}\n");
        hear(second, reply, sizeof reply);
        CHECK(strncmp(reply, "{\"Err\":", 7) == 0);
        CHECK(at_end(second));
        CHECK_REPLY(first, "{\"Get\":{\"key\":\"k\"}}\n", "{\"Ok\":\"v\"}");
        close(first);
        close(second);
    }
    kvs_server_free(server);
    kvs_options_free(options);
    kvs_store_free(store);
}

/* Each limit arrives where it belongs: one that cannot work is refused by its name. */
static void limits_that_cannot_work_are_refused(const char *dir) {
    static const struct {
        int32_t id;
        uint64_t value;
        const char *name;
    } limits[] = {
        {KVS_OPT_SERVER_CONNECTIONS_MAX, 0, "connections_max"},
        {KVS_OPT_SERVER_REQUEST_BYTES_MAX, 0, "request_bytes_max"},
        {KVS_OPT_SERVER_REQUEST_BYTES_MAX, ((uint64_t)1 << 30) + 1, "request_bytes_max"},
        {KVS_OPT_SERVER_OUTPUT_BYTES_MAX, 0, "output_bytes_max"},
        {KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS, 0, "first_byte_timeout"},
        {KVS_OPT_SERVER_REQUEST_TIMEOUT_MS, 0, "request_timeout"},
        {KVS_OPT_SERVER_STALL_TIMEOUT_MS, 0, "stall_timeout"},
        {KVS_OPT_SERVER_LINGER_TIMEOUT_MS, 0, "linger_timeout"},
        {KVS_OPT_SERVER_KEEPALIVE_TIME_MS, 999, "keepalive_time"},
    };
    kvs_store *store = open_store(dir);
    size_t i;

    for (i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        kvs_options *options = kvs_options_new();
        kvs_server *server = NULL;
        CHECK_OK(kvs_options_set_u64(options, limits[i].id, limits[i].value));
        CHECK_FAILS(KVS_ERR_INVALID, limits[i].name,
                    kvs_server_start(store, "127.0.0.1:0", options, &server));
        CHECK(server == NULL);
        kvs_options_free(options);
    }
    kvs_store_free(store);
}

static void requests_over_the_limits_are_cut_off(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_options *options = kvs_options_new();
    kvs_server *server = NULL;
    char reply[512];
    int fd;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_REQUEST_BYTES_MAX, 40));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_REQUEST_TIMEOUT_MS, 100));
    if (CHECK_OK(kvs_server_start(store, "127.0.0.1:0", options, &server))) {
        fd = dial(port_of(server));
        CHECK_REPLY(fd, "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n", "{\"Ok\":null}");
        say(fd, "{\"Set\":{\"key\":\"k\",\"value\":\"a longer value\"}}\n");
        hear(fd, reply, sizeof reply);
        CHECK(strncmp(reply, "{\"Err\":", 7) == 0);
        CHECK(at_end(fd));
        close(fd);
        /* Half a request, and no more. */
        fd = dial(port_of(server));
        say(fd, "{\"Get\":");
        hear(fd, reply, sizeof reply);
        CHECK(at_end(fd));
        close(fd);
        CHECK_VALUE(store, "k", "v");
    }
    kvs_server_free(server);
    kvs_options_free(options);
    kvs_store_free(store);
}

/* Two requests that have arrived in part are more than all clients may have, though the first 64 KiB
 * of each do not count. */
static void unfinished_requests_have_a_limit_together(const char *dir) {
    static char part[150000];
    kvs_store *store = open_store(dir);
    kvs_options *options = kvs_options_new();
    kvs_server *server = NULL;
    struct pollfd clients[2];
    char reply[512] = "";
    int i;

    memset(part, 'v', sizeof part - 1);
    memcpy(part, "{\"Set\":{\"key\":\"", 15);
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_REQUEST_BYTES_MAX, 160000));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_UNFINISHED_BYTES_MAX, 0));
    /* Two threads might refuse both. */
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SERVER_THREADS, 1));
    if (CHECK_OK(kvs_server_start(store, "127.0.0.1:0", options, &server))) {
        for (i = 0; i < 2; i++) {
            clients[i].fd = dial(port_of(server));
            clients[i].events = POLLIN;
            say(clients[i].fd, part);
        }
        if (CHECK(poll(clients, 2, 20000) > 0)) {
            hear(clients[clients[0].revents == 0].fd, reply, sizeof reply);
            CHECK(strncmp(reply, "{\"Err\":", 7) == 0);
        }
        for (i = 0; i < 2; i++) close(clients[i].fd);
    }
    kvs_server_free(server);
    kvs_options_free(options);
    kvs_store_free(store);
}

static void server_restarts_on_its_port_and_leaks_nothing(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server;
    uint16_t port;
    int threads, files, round;

    /* What the store opens for its first write is not the server's. */
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("first")));
    threads = entries_in("/proc/self/task");
    files = entries_in("/proc/self/fd");
    server = start_server(store, 0);
    port = port_of(server);
    CHECK_OK(kvs_server_stop(server, 1000));
    CHECK_OK(kvs_server_stop(server, 1000));
    kvs_server_free(server);
    for (round = 0; round < rounds(100); round++) {
        int fd;
        server = start_server(store, port);
        if (server == NULL) break;
        fd = dial(port);
        CHECK_REPLY(fd, "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n", "{\"Ok\":null}");
        /* Now and then the client is still there, and is told by the end of its input. */
        if (round % 20 != 0) close(fd);
        CHECK_OK(kvs_server_stop(server, 1000));
        CHECK_STATUS(KVS_OK, kvs_server_wait(server, 0));
        if (round % 20 == 0) {
            CHECK(at_end(fd));
            close(fd);
        }
        kvs_server_free(server);
    }
    /* sled starts and ends threads of its own as it sees fit. */
    if (engine_is("kvs")) CHECK_ENTRIES(threads, "/proc/self/task");
    CHECK_ENTRIES(files, "/proc/self/fd");
    CHECK_VALUE(store, "k", "v");
    kvs_store_free(store);
}

static void server_can_be_freed_with_clients_connected(const char *dir) {
    enum { CLIENTS = 20 };
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    int fds[CLIENTS], i;

    for (i = 0; i < CLIENTS; i++) {
        fds[i] = dial(port_of(server));
        CHECK_REPLY(fds[i], "{\"Get\":{\"key\":\"k\"}}\n", "{\"Ok\":null}");
        if (i % 2 == 0) say(fds[i], "{\"Get\":{\"ke"); /* Half a request. */
    }
    kvs_server_free(server);
    for (i = 0; i < CLIENTS; i++) {
        char rest[64];
        /* Cut off, perhaps with a last word. */
        while (recv(fds[i], rest, sizeof rest, 0) > 0) continue;
        close(fds[i]);
    }
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
}

static void *wait_for_ever(void *server) {
    CHECK_OK(kvs_server_wait(server, KVS_WAIT_FOREVER));
    return NULL;
}

static void wait_ends_when_another_thread_stops(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    pthread_t waiter;

    CHECK_STATUS(KVS_TIMEOUT, kvs_server_wait(server, 0));
    CHECK_STATUS(KVS_TIMEOUT, kvs_server_wait(server, 30));
    CHECK(pthread_create(&waiter, NULL, wait_for_ever, server) == 0);
    CHECK_OK(kvs_server_stop(server, 1000));
    CHECK(pthread_join(waiter, NULL) == 0);
    kvs_server_free(server);
    kvs_store_free(store);
}

static void server_outlives_the_stores_handle(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    int fd = dial(port_of(server));
    char reply[512];

    CHECK_REPLY(fd, "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n", "{\"Ok\":null}");
    kvs_store_free(store);
    say(fd, "{\"Get\":{\"key\":\"k\"}}\n");
    hear(fd, reply, sizeof reply);
    CHECK(strncmp(reply, "{\"Err\":", 7) == 0 && strstr(reply, "closed") != NULL);
    /* The directory is free, though the server holds on to the closed store. */
    store = open_store(dir);
    CHECK_VALUE(store, "k", "v");
    close(fd);
    kvs_server_free(server);
    kvs_store_free(store);
}

typedef struct client {
    uint16_t port;
    int number;
} client;

/* Sets keys until the connection ends, and remembers in the store's own terms how far it got. */
static void *write_until_cut_off(void *argument) {
    client *client = argument;
    int fd = dial(client->port), acknowledged = 0;
    char request[128], reply[128];

    for (; fd >= 0; acknowledged++) {
        int len = snprintf(request, sizeof request,
                           "{\"Set\":{\"key\":\"%d-%d\",\"value\":\"v\"}}\n", client->number,
                           acknowledged);
        if (send(fd, request, (size_t)len, MSG_NOSIGNAL) != len) break;
        hear(fd, reply, sizeof reply);
        if (strcmp(reply, "{\"Ok\":null}") != 0) break;
    }
    if (fd >= 0) close(fd);
    client->number = acknowledged;
    return NULL;
}

static void stop_under_load_loses_no_acknowledged_write(const char *dir) {
    enum { CLIENTS = 8 };
    kvs_store *store = open_store(dir);
    kvs_server *server = start_server(store, 0);
    pthread_t threads[CLIENTS];
    client clients[CLIENTS];
    int i, n, total = 0;

    for (i = 0; i < CLIENTS; i++) {
        clients[i].port = port_of(server);
        clients[i].number = i;
        CHECK(pthread_create(&threads[i], NULL, write_until_cut_off, &clients[i]) == 0);
    }
    for (i = 0; i < 20000 && kvs_contains(store, BYTES("0-0")) != KVS_OK; i++) usleep(1000);
    usleep(50 * 1000);
    CHECK_OK(kvs_server_stop(server, 5000));
    for (i = 0; i < CLIENTS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        for (n = 0; n < clients[i].number; n++) {
            char key[32];
            int len = snprintf(key, sizeof key, "%d-%d", i, n);
            CHECK_OK(kvs_contains(store, key, (size_t)len));
        }
        total += clients[i].number;
    }
    CHECK(total > 0);
    kvs_server_free(server);
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
}

const phase server_phases[] = {
    PHASE(server_and_program_share_one_store, PLAIN),
    PHASE(address_tells_the_real_port, PLAIN),
    PHASE(addresses_that_cannot_work_are_refused, PLAIN),
    PHASE(every_pool_serves, PLAIN),
    PHASE(a_socket_that_listens_can_be_handed_over, PLAIN),
    PHASE(limits_that_cannot_work_are_refused, PLAIN),
    PHASE(requests_over_the_limits_are_cut_off, PLAIN),
    PHASE(unfinished_requests_have_a_limit_together, PLAIN),
    PHASE(connections_over_the_limit_are_told_so, PLAIN),
    PHASE(server_restarts_on_its_port_and_leaks_nothing, PLAIN),
    PHASE(server_can_be_freed_with_clients_connected, PLAIN),
    PHASE(wait_ends_when_another_thread_stops, PLAIN),
    PHASE(server_outlives_the_stores_handle, PLAIN),
    PHASE(stop_under_load_loses_no_acknowledged_write, PLAIN),
    {NULL, PLAIN, NULL},
};
