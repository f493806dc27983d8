/* The same, and a server on the open store: kvs-client --addr 127.0.0.1:4000 get no */
#include <stdio.h>

#include "kvs.h"

int main(int argc, char **argv) {
    kvs_store *store = NULL;
    kvs_server *server = NULL;
    int failed = kvs_open(argc > 1 ? argv[1] : "cities", NULL, &store) < 0 ||
                 kvs_server_start(store, argc > 2 ? argv[2] : "127.0.0.1:4000", NULL, &server) < 0;
    uint16_t port = 0;

    if (failed) fprintf(stderr, "%s\n", kvs_last_error());
    else if (kvs_server_port(server, &port) == KVS_OK) {
        printf("serving on port %u until Enter is pressed\n", (unsigned)port);
        fflush(stdout);
        getchar();
        failed = kvs_server_stop(server, 5000) < 0;
    }
    kvs_server_free(server);
    kvs_store_free(store);
    return failed;
}
