/* Who outlives what: buffers, handles, threads, processes. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A buffer outlives the overwrite of its key, a compaction, the close and the store itself. */
static void buffer_outlives_its_store(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_buf *buf = NULL;
    int i;

    CHECK_OK(kvs_set(store, BYTES("city"), BYTES("Oslo")));
    CHECK_OK(kvs_get(store, BYTES("city"), &buf));
    for (i = 0; i < 1000; i++) CHECK_OK(kvs_set(store, BYTES("city"), BYTES("Bergen")));
    CHECK_OK(kvs_compact(store));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);

    CHECK_NUMBER(4, kvs_buf_len(buf));
    CHECK(memcmp(kvs_buf_data(buf), "Oslo", 4) == 0);
    kvs_buf_free(buf);
}

/* What the threads of the next phase share. */
typedef struct race {
    kvs_store *store;
    int closed_seen; /* Changed by many threads: only with __atomic builtins. */
} race;

static kvs_status use_a_scan(kvs_store *store) {
    kvs_iter *iter = NULL;
    char dst[256];
    size_t used, count, needed;
    kvs_status status = kvs_scan(store, NULL, 0, NULL, 0, 0, &iter);

    while (status == KVS_OK)
        status = kvs_iter_next_many(iter, dst, sizeof dst, &used, &count, &needed);
    kvs_iter_free(iter);
    return status == KVS_END ? KVS_OK : status;
}

static kvs_status use_a_batch(kvs_store *store, uint32_t key) {
    uint32_t value[4] = {key, key, key, key};
    kvs_batch *batch = kvs_batch_new();
    kvs_status status;

    CHECK_OK(kvs_batch_set(batch, &key, sizeof key, value, sizeof value));
    status = kvs_write(store, batch, 0);
    kvs_batch_free(batch);
    return status;
}

/* Works on the store until it is closed by somebody else, and then makes sure it stays closed. */
static void *use_until_closed(void *argument) {
    race *race = argument;
    uint32_t i;

    for (i = 0;; i++) {
        uint32_t key = i % 64, value[4] = {key, key, key, key}, found[4];
        size_t len = 0;
        uint64_t count;
        kvs_buf *buf = NULL;
        kvs_status status;

        switch (i % 7) {
        case 0: status = kvs_set(race->store, &key, sizeof key, value, sizeof value); break;
        case 1: status = kvs_get(race->store, &key, sizeof key, &buf); break;
        case 2:
            status = kvs_get_into(race->store, &key, sizeof key, found, sizeof found, &len);
            if (status == KVS_OK) CHECK(len == sizeof found && found[0] == key && found[3] == key);
            break;
        case 3: status = kvs_remove(race->store, &key, sizeof key); break;
        case 4: status = use_a_scan(race->store); break;
        case 5: status = use_a_batch(race->store, key); break;
        default: status = kvs_len(race->store, &count); break;
        }
        kvs_buf_free(buf);
        if (status == KVS_ERR_CLOSED) break;
        if (!CHECK(status == KVS_OK || status == KVS_NOT_FOUND)) {
            fail(__FILE__, __LINE__, "%s: %s", kvs_status_name(status), kvs_last_error());
            break;
        }
    }
    CHECK_STATUS(KVS_ERR_CLOSED, kvs_sync(race->store));
    __atomic_add_fetch(&race->closed_seen, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *close_too(void *store) {
    CHECK_OK(kvs_close(store));
    return NULL;
}

/* The scenario that other bindings leave out because it crashes: close in the middle of everything,
 * from two threads at once. */
static void close_is_safe_while_others_work(const char *dir) {
    enum { THREADS = 4 };
    int round;

    for (round = 0; round < rounds(100); round++) {
        pthread_t threads[THREADS], closer;
        race race = {NULL, 0};
        int i;

        race.store = open_store(dir);
        if (race.store == NULL) return;
        for (i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, use_until_closed, &race) == 0);
        usleep((useconds_t)(round % 8) * 200);
        CHECK(pthread_create(&closer, NULL, close_too, race.store) == 0);
        CHECK_OK(kvs_close(race.store));
        CHECK(pthread_join(closer, NULL) == 0);
        for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_NUMBER(THREADS, __atomic_load_n(&race.closed_seen, __ATOMIC_SEQ_CST));
        kvs_store_free(race.store);
    }
}

static void *fail_elsewhere(void *argument) {
    kvs_store *store = argument;
    CHECK(strcmp(kvs_last_error(), "") == 0);
    CHECK_FAILS(KVS_ERR_NULL, "value", kvs_set(store, "k", 1, NULL, 1));
    return NULL;
}

static void each_thread_has_its_own_last_error(const char *dir) {
    kvs_store *store = open_store(dir);
    pthread_t thread;

    CHECK_FAILS(KVS_ERR_NULL, "key", kvs_set(store, NULL, 1, "v", 1));
    CHECK(pthread_create(&thread, NULL, fail_elsewhere, store) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(strstr(kvs_last_error(), "key") != NULL);
    kvs_store_free(store);
}

/* Child: every call on the parent's handles is refused; frees release memory and nothing else. */
static void check_in_child(fixture *f, kvs_buf *buf) {
    check_forked_is_refused(f);
    CHECK(kvs_buf_len(buf) == 4 && memcmp(kvs_buf_data(buf), "Oslo", 4) == 0);
    kvs_buf_free(buf);
    free_fixture(f);
}

static void forked_child_is_refused_and_harms_nothing(const char *dir) {
    fixture f;
    kvs_buf *buf = NULL;
    char printed[1024];
    int round;

    make_fixture(&f, dir, 1);
    CHECK_OK(kvs_get(f.store, BYTES("k"), &buf));
    for (round = 0; round < 5; round++) {
        const int before = failures_now();
        pid_t child;
        fflush(NULL);
        child = fork();
        if (child == 0) {
            alarm(20); /* A hang must be a failure, not a hang. */
            check_in_child(&f, buf);
            child_end(before);
        }
        CHECK_CHILD(child);
        /* The parent goes on: it can write, its lock holds, its server runs. */
        CHECK_OK(kvs_set(f.store, &round, sizeof round, BYTES("v")));
        CHECK_OK(kvs_sync(f.store));
        open_elsewhere(dir, printed, sizeof printed);
        CHECK(strncmp(printed, "KVS_ERR_LOCKED", 14) == 0);
        CHECK_STATUS(KVS_TIMEOUT, kvs_server_wait(f.server, 0));
    }
    CHECK_VALUE(f.store, "k", "Oslo");
    CHECK_OK(kvs_server_stop(f.server, 1000));
    kvs_buf_free(buf);
    CHECK_OK(kvs_close(f.store));
    free_fixture(&f);
}

/* Acknowledged writes of a killed process are there afterwards, and nothing is that was not sent. */
static void killed_writers_acknowledged_writes_survive(const char *dir) {
    uint32_t highest = 0, i;
    int round;

    for (round = 0; round < 10; round++) {
        int output = -1;
        uint32_t acknowledged = 0, count = 0;
        uint64_t len = 0;
        kvs_options *options = engine_options();
        kvs_store *store = NULL;
        pid_t child = start_child("--child-write", dir, &output);

        while (count < (uint32_t)(20 + 13 * round) &&
               read(output, &acknowledged, sizeof acknowledged) == sizeof acknowledged)
            count++;
        CHECK(kill(child, SIGKILL) == 0);
        while (read(output, &acknowledged, sizeof acknowledged) == sizeof acknowledged) count++;
        CHECK(waitpid(child, NULL, 0) == child);
        close(output);
        CHECK(count > 0 && acknowledged == count - 1);
        if (acknowledged > highest) highest = acknowledged;

        CHECK_OK(kvs_options_set_u64(options, KVS_OPT_LOCK_TIMEOUT_MS, 5000));
        if (CHECK_OK(kvs_open(dir, options, &store))) {
            for (i = 0; i <= highest; i++) {
                uint32_t value = 0;
                size_t value_len = 0;
                CHECK_OK(kvs_get_into(store, &i, sizeof i, &value, sizeof value, &value_len));
                CHECK(value_len == sizeof value && value == i);
            }
            /* One more may have been written and not acknowledged. */
            CHECK_OK(kvs_len(store, &len));
            CHECK(len == highest + 1 || len == highest + 2);
            if (len == highest + 2) highest++;
        }
        kvs_options_free(options);
        kvs_store_free(store);
    }
}

/* Reads "Name: value" of a thread; 0 if there is none. */
static unsigned long long number_of(const char *thread, const char *name) {
    char line[256];
    unsigned long long number = 0;
    FILE *file = fopen(path_in(thread, "status"), "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0) sscanf(line + strlen(name), "%llx", &number);
    if (file != NULL) fclose(file);
    return number;
}

/* What a library does inside somebody's process: its threads have its name and leave signals to
 * others, its descriptors end with exec, and the handlers of signals are the program's. */
static void manners_are_kept(const char *dir) {
    struct sigaction before[32], after;
    kvs_store *store;
    kvs_server *server = NULL;
    DIR *list;
    struct dirent *entry;
    int i, threads = 0, files = 0;

    if (UNDER_THREAD_SANITIZER) return; /* It has threads and handlers of its own. */
    for (i = 1; i < 32; i++) sigaction(i, NULL, &before[i]);
    store = open_store(dir);
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_OK(kvs_server_start(store, "127.0.0.1:0", NULL, &server));
    for (i = 1; i < 32; i++) {
        sigaction(i, NULL, &after);
        CHECK(after.sa_handler == before[i].sa_handler);
    }
    list = opendir("/proc/self/task");
    while (list != NULL && engine_is("kvs") && (entry = readdir(list)) != NULL) {
        char thread[64], name[64] = "kvs-";
        FILE *file;
        int tries;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)getpid()) continue;
        snprintf(thread, sizeof thread, "/proc/self/task/%.20s", entry->d_name);
        /* A thread gives itself its name, when it comes to run. */
        for (tries = 0; tries < 5000; tries++) {
            file = fopen(path_in(thread, "comm"), "r");
            if (file == NULL) break; /* It is gone. */
            if (fgets(name, sizeof name, file) == NULL) name[0] = 0;
            fclose(file);
            if (strncmp(name, "kvs-", 4) == 0) break;
            usleep(2000);
        }
        if (strncmp(name, "kvs-", 4) != 0) fail(__FILE__, __LINE__, "a thread %s", name);
        /* All but those that cannot be, or that the C library keeps for itself. */
        CHECK((number_of(thread, "SigBlk:") & 0x7ffbfeff) == 0x7ffbfeff);
        threads++;
    }
    if (list != NULL) closedir(list);
    for (i = 3; i < 1024; i++) {
        const int flags = fcntl(i, F_GETFD);
        char name[32], target[256] = "";
        if (flags < 0) continue;
        sprintf(name, "/proc/self/fd/%d", i);
        if (readlink(name, target, sizeof target - 1) < 0) continue;
        if (strstr(target, dir) == NULL && strstr(target, "socket:") == NULL) continue;
        if ((flags & FD_CLOEXEC) == 0) fail(__FILE__, __LINE__, "%s survives exec", target);
        files++;
    }
    CHECK(list == NULL || (files > 2 && (threads > 2 || !engine_is("kvs"))));
    kvs_server_free(server);
    kvs_store_free(store);
}

/* A daemon opens its store by a relative path and then goes to the root directory. */
static void a_program_may_change_its_directory(const char *dir) {
    char before[4096], value[1000];
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    uint64_t count = 0;
    uint32_t i;

    memset(value, 'v', sizeof value);
    CHECK(getcwd(before, sizeof before) != NULL);
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MIN, 0));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MAX, 65536));
    CHECK(chdir(dir) == 0);
    CHECK_OK(kvs_open("store", options, &store));
    CHECK(chdir("/") == 0);
    for (i = 0; i < 1000; i++) CHECK_OK(kvs_set(store, &i, 4, value, sizeof value));
    if (engine_is("kvs")) CHECK_OK(kvs_compact(store));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
    store = NULL;

    CHECK(chdir(before) == 0);
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_CREATE, 0));
    CHECK_OK(kvs_open(path_in(dir, "store"), options, &store));
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(1000, count);
    kvs_store_free(store);
    kvs_options_free(options);
}

const phase lifetimes_phases[] = {
    PHASE(manners_are_kept, PLAIN),
    PHASE(a_program_may_change_its_directory, PLAIN),
    PHASE(buffer_outlives_its_store, PLAIN),
    PHASE(close_is_safe_while_others_work, PLAIN),
    PHASE(each_thread_has_its_own_last_error, PLAIN),
    PHASE(forked_child_is_refused_and_harms_nothing, FORKS),
    PHASE(killed_writers_acknowledged_writes_survive, FORKS),
    {NULL, PLAIN, NULL},
};
