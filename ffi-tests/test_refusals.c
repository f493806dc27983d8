/* What a store says to a program that makes mistakes, or meets somebody else's. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* After calls that were all refused: nothing was done, and everything still works. */
static void check_unharmed(fixture *f) {
    const void *key, *value;
    size_t key_len, value_len;
    uint64_t count = 0;

    CHECK_OK(kvs_len(f->store, &count));
    CHECK_NUMBER(1, count);
    CHECK_VALUE(f->store, "k", "Oslo");
    CHECK_NUMBER(1, kvs_batch_count(f->batch));
    CHECK_OK(kvs_iter_next(f->iter, &key, &key_len, &value, &value_len));
    CHECK(access(f->unused, F_OK) != 0);
    free_fixture(f);
}

static void null_is_refused_by_the_arguments_name(const char *dir) {
    fixture f;
    make_fixture(&f, dir, 1);
    check_null_is_refused(&f);
    check_null_is_accepted_elsewhere();
    check_unharmed(&f);
}

static void negative_lengths_are_refused(const char *dir) {
    fixture f;
    make_fixture(&f, dir, 0);
    check_negative_lengths_are_refused(&f);
    check_unharmed(&f);
}

static void value_over_the_limit_is_refused(const char *dir) {
    kvs_store *store = open_store(dir);
    const size_t len = (size_t)KVS_VALUE_LEN_MAX + 1;
    /* Never touched by the library, so it costs address space and no memory. */
    void *value = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t count = 99;

    if (CHECK(value != MAP_FAILED)) {
        CHECK_FAILS(KVS_ERR_VALUE_TOO_LONG, "1073741825", kvs_set(store, "k", 1, value, len));
        CHECK_OK(kvs_len(store, &count));
        CHECK_NUMBER(0, count);
        munmap(value, len);
    }
    kvs_store_free(store);
}

static void options_that_cannot_work_are_refused(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *store = (kvs_store *)1;
    uint64_t value = 99;

    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "option 999", kvs_options_set_u64(options, 999, 1));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "option 999", kvs_options_set_str(options, 999, "x", 1));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "option 999", kvs_options_get_u64(options, 999, &value));
    CHECK_NUMBER(0, value);
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_DURABILITY",
                kvs_options_set_u64(options, KVS_OPT_DURABILITY, 3));
    CHECK_FAILS(KVS_ERR_INVALID, "a KVS_WRITE_MODE_*",
                kvs_options_set_u64(options, KVS_OPT_WRITE_MODE, 2));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_CREATE",
                kvs_options_set_u64(options, KVS_OPT_CREATE, 2));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_ENGINE",
                kvs_options_set_u64(options, KVS_OPT_ENGINE, 1));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_ENGINE",
                kvs_options_get_u64(options, KVS_OPT_ENGINE, &value));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_CREATE",
                kvs_options_set_str(options, KVS_OPT_CREATE, "yes", 3));
    CHECK_FAILS(KVS_ERR_NOT_UTF8, "KVS_OPT_ENGINE",
                kvs_options_set_str(options, KVS_OPT_ENGINE, "\xff", 1));

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_COMPACTION_DEAD_PERCENT_MIN, 90));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_OPT_COMPACTION_DEAD_PERCENT_MIN must be between 10 and 90",
                kvs_options_set_u64(options, KVS_OPT_COMPACTION_DEAD_PERCENT_MIN, 91));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_COMPACTION_DEAD_PERCENT_MIN, 9));
    if (engine_is("kvs"))
        CHECK_FAILS(KVS_ERR_INVALID, "dead_percent", kvs_open(dir, options, &store));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_COMPACTION_DEAD_PERCENT_MIN, 10));

    /* What only shows together. */
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SYNC_INTERVAL_MS, 0));
    CHECK_FAILS(KVS_ERR_INVALID, "durability", kvs_open(dir, options, &store));
    CHECK(store == NULL);
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SYNC_INTERVAL_MS, 10));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MAX, 4095));
    CHECK_FAILS(KVS_ERR_INVALID, "segment_bytes_max", kvs_open(dir, options, &store));
    kvs_options_free(options);

    options = kvs_options_new();
    CHECK_OK(kvs_options_set_str(options, KVS_OPT_ENGINE, "stones", 6));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "stones", kvs_open(dir, options, &store));
    kvs_options_free(options);
}

/* What comes of an option: where it is set, or else where a store is opened or a server started,
 * in a directory of its own. */
static kvs_status tried(const char *dir, const option_row *row, uint64_t value) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    kvs_server *server = NULL;
    kvs_status status;

    /* So that the smallest largest size is one. */
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MIN, 0));
    status = kvs_options_set_u64(options, row->id, value);
    if (status == KVS_OK && row->id < 1000) status = kvs_open(dir, options, &store);
    /* 1,024 threads are not started to see that they could be. */
    if (status == KVS_OK && row->id >= 1000 && row->id != KVS_OPT_SERVER_THREADS) {
        store = open_store(dir);
        status = kvs_server_start(store, "127.0.0.1:0", options, &server);
    }
    kvs_server_free(server);
    kvs_store_free(store);
    kvs_options_free(options);
    return status;
}

/* Each comment in kvs.h is true: the default, and the two ends of what can be chosen. What is
 * within may still be refused for another reason than its value, as a store that is not there. */
static void options_are_what_their_comments_say(const char *dir) {
    const option_row *row;
    char name[32];
    int tries = 0;

    if (!engine_is("kvs")) return;
    for (row = option_rows; row->name != NULL; row++) {
        kvs_options *options = kvs_options_new();
        uint64_t value = 99;
        int end;
        CHECK_OK(kvs_options_get_u64(options, row->id, &value));
        if (value != row->value) fail(__FILE__, __LINE__, "%s: another default", row->name);
        kvs_options_free(options);
        for (end = 0; row->has_range && end < 2; end++) {
            const uint64_t within = end == 0 ? row->lowest : row->highest;
            const uint64_t beyond = end == 0 ? row->lowest - 1 : row->highest + 1;
            sprintf(name, "%d", ++tries);
            if (tried(path_in(dir, name), row, within) == KVS_ERR_INVALID)
                fail(__FILE__, __LINE__, "%s: not %lu: %s", row->name, (unsigned long)within,
                     kvs_last_error());
            if (end == 0 ? within == 0 : within == UINT64_MAX) continue; /* There is no beyond. */
            sprintf(name, "%d", ++tries);
            if (tried(path_in(dir, name), row, beyond) != KVS_ERR_INVALID)
                fail(__FILE__, __LINE__, "%s: %lu too", row->name, (unsigned long)beyond);
        }
    }
    CHECK(tries > 60);
}

static void create_and_exclusive_are_obeyed(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    const char *path = path_in(dir, "store");

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_CREATE, 0));
    CHECK_FAILS(KVS_ERR_NO_STORE, path, kvs_open(path, options, &store));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_CREATE, 1));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_EXCLUSIVE, 1));
    CHECK_OK(kvs_open(path, options, &store));
    kvs_store_free(store);
    CHECK_FAILS(KVS_ERR_STORE_EXISTS, path, kvs_open(path, options, &store));
    CHECK(store == NULL);
    kvs_options_free(options);
}

static void another_engines_store_is_refused(const char *dir) {
    kvs_options *options = kvs_options_new();
    kvs_store *store = open_store(dir);
    const char *other = engine_is("kvs") ? "sled" : "kvs";

    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    kvs_store_free(store);
    CHECK_OK(kvs_options_set_str(options, KVS_OPT_ENGINE, other, strlen(other)));
    CHECK_FAILS(KVS_ERR_WRONG_ENGINE, other, kvs_open(dir, options, &store));
    kvs_options_free(options);

    /* Without a wish it is the engine that wrote the directory. */
    CHECK_OK(kvs_open(dir, NULL, &store));
    CHECK_VALUE(store, "k", "v");
    kvs_store_free(store);
}

static void paths_that_are_no_directory_are_refused(const char *dir) {
    kvs_store *store = NULL;
    kvs_options *options = engine_options();
    const char *file = path_in(dir, "file");

    write_file(file, "text", 4);
    CHECK_FAILS(KVS_ERR_NOT_A_DIRECTORY, file, kvs_open(file, options, &store));
    CHECK(kvs_open(path_in(file, "below"), options, &store) < 0);
    CHECK_FAILS(KVS_ERR_INVALID, "path_utf8", kvs_open("", options, &store));
    CHECK_FAILS(KVS_ERR_NOT_UTF8, "path_utf8",
                kvs_open(path_in(dir, "\xc3("), options, &store));
    CHECK(store == NULL);
    kvs_options_free(options);
}

static void no_permission_is_said_so(const char *dir) {
    const int before = failures_now();
    pid_t child;

    CHECK(chmod(dir, 0500) == 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        kvs_options *options = engine_options();
        kvs_store *store = NULL;
        kvs_status status;
        /* Permissions do not bind root: become nobody, in this child only. */
        if (geteuid() == 0) CHECK(chown(dir, 65534, 65534) == 0 && setgid(65534) == 0 &&
                                  setuid(65534) == 0);
        status = kvs_open(path_in(dir, "store"), options, &store);
        if (engine_is("kvs")) {
            CHECK_STATUS(KVS_ERR_PERMISSION, status);
            CHECK(strstr(kvs_last_error(), dir) != NULL);
            CHECK_NUMBER(EACCES, kvs_last_os_error());
        }
        CHECK(status < 0 && store == NULL);
        kvs_options_free(options);
        child_end(before);
    }
    CHECK_CHILD(child);
    CHECK(chmod(dir, 0700) == 0);
}

static void second_opener_here_is_refused(const char *dir) {
    kvs_store *store = open_store(dir), *second = NULL;
    kvs_options *options = engine_options();

    CHECK_FAILS(KVS_ERR_LOCKED, dir, kvs_open(dir, options, &second));
    CHECK(second == NULL);
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_OK(kvs_close(store));
    /* Closed is enough: the pointer may live on. */
    CHECK_OK(kvs_open(dir, options, &second));
    CHECK_VALUE(second, "k", "v");
    kvs_store_free(second);
    kvs_store_free(store);
    kvs_options_free(options);
}

static void second_opener_elsewhere_is_told_our_pid(const char *dir) {
    kvs_store *store = open_store(dir);
    char printed[1024], pid[32];

    open_elsewhere(dir, printed, sizeof printed);
    CHECK(strncmp(printed, "KVS_ERR_LOCKED ", 15) == 0);
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    if (engine_is("kvs")) CHECK(strstr(printed, pid) != NULL);
    kvs_store_free(store);
    open_elsewhere(dir, printed, sizeof printed);
    CHECK(strcmp(printed, "KVS_OK ") == 0);
}

static void closed_store_refuses_every_call(const char *dir) {
    fixture f;
    make_fixture(&f, dir, 0);
    CHECK_OK(kvs_close(f.store));
    CHECK_OK(kvs_close(f.store));
    check_closed_is_refused(&f);
    check_closed_is_refused(&f);
    CHECK(access(f.unused, F_OK) != 0);
    free_fixture(&f);
}

static void logs_of_the_first_implementation_are_refused(const char *dir) {
    static const char log[] = "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n";
    kvs_store *store = NULL;
    kvs_options *options = engine_options();

    if (!engine_is("kvs")) {
        kvs_options_free(options);
        return;
    }
    write_file(path_in(dir, "1.log"), log, sizeof log - 1);
    CHECK_FAILS(KVS_ERR_FORMAT, "import", kvs_open(dir, options, &store));
    kvs_options_free(options);
}

/* A file of a small store, as it was before it was damaged. */
typedef struct kept_file {
    char path[512];
    unsigned char *bytes;
    size_t len;
} kept_file;

static size_t keep_files(const char *dir, kept_file *files, size_t capacity) {
    DIR *list = opendir(dir);
    struct dirent *entry;
    size_t count = 0;

    while (list != NULL && count < capacity && (entry = readdir(list)) != NULL) {
        kept_file *kept = &files[count];
        struct stat st;
        FILE *file;
        snprintf(kept->path, sizeof kept->path, "%s/%s", dir, entry->d_name);
        if (stat(kept->path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) continue;
        if (strcmp(entry->d_name, "LOCK") == 0) continue;
        kept->len = (size_t)st.st_size;
        kept->bytes = malloc(kept->len);
        file = fopen(kept->path, "rb");
        if (file == NULL) continue;
        if (CHECK(fread(kept->bytes, 1, kept->len, file) == kept->len)) count++;
        fclose(file);
    }
    if (list != NULL) closedir(list);
    return count;
}

static void remove_files(const char *dir) {
    DIR *list = opendir(dir);
    struct dirent *entry;
    while (list != NULL && (entry = readdir(list)) != NULL) unlink(path_in(dir, entry->d_name));
    if (list != NULL) closedir(list);
}

/* Opens a damaged store and looks every key up: each answer is the right one or a refusal. Returns
 * how many refusals there were. */
static int look_at_damaged(const char *dir, uint32_t keys) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    kvs_status status = kvs_open(dir, options, &store);
    int refused = status < 0;
    uint32_t i;

    kvs_options_free(options);
    if (status < 0) {
        CHECK(status == KVS_ERR_CORRUPT || status == KVS_ERR_FORMAT);
        CHECK(strstr(kvs_last_error(), dir) != NULL);
        return refused;
    }
    for (i = 0; i < keys; i++) {
        uint32_t value[8];
        size_t len = 0;
        status = kvs_get_into(store, &i, sizeof i, value, sizeof value, &len);
        if (status == KVS_OK) CHECK(len == sizeof value && value[0] == i * 7 && value[7] == i * 7);
        else CHECK(status == KVS_NOT_FOUND || status == KVS_ERR_CORRUPT);
        refused += status != KVS_OK;
    }
    kvs_store_free(store);
    return refused;
}

static void damaged_files_never_give_a_wrong_value(const char *dir) {
    enum { KEYS = 40, FILES = 32 };
    kept_file files[FILES];
    kvs_store *store;
    size_t count, f, at, other;
    int refused = 0;
    uint32_t i;

    if (!engine_is("kvs")) return;
    store = open_store(dir);
    for (i = 0; i < KEYS; i++) {
        uint32_t value[8], j;
        for (j = 0; j < 8; j++) value[j] = i * 7;
        CHECK_OK(kvs_set(store, &i, sizeof i, value, sizeof value));
    }
    kvs_store_free(store);
    CHECK_NUMBER(0, look_at_damaged(dir, KEYS));

    count = keep_files(dir, files, FILES);
    CHECK(count > 0);
    for (f = 0; f < count; f++) {
        for (at = 0; at < files[f].len; at += 1 + files[f].len / (size_t)rounds(200)) {
            remove_files(dir);
            for (other = 0; other < count; other++) {
                files[other].bytes[at % files[other].len] ^= other == f ? 0x20 : 0;
                write_file(files[other].path, files[other].bytes, files[other].len);
                files[other].bytes[at % files[other].len] ^= other == f ? 0x20 : 0;
            }
            refused += look_at_damaged(dir, KEYS);
        }
    }
    /* Damage is noticed, or this phase looks the wrong way. */
    CHECK(refused > 0);
    for (f = 0; f < count; f++) free(files[f].bytes);
}

const phase refusals_phases[] = {
    PHASE(null_is_refused_by_the_arguments_name, PLAIN),
    PHASE(negative_lengths_are_refused, PLAIN),
    PHASE(value_over_the_limit_is_refused, PLAIN),
    PHASE(options_that_cannot_work_are_refused, PLAIN),
    PHASE(options_are_what_their_comments_say, PLAIN),
    PHASE(create_and_exclusive_are_obeyed, PLAIN),
    PHASE(another_engines_store_is_refused, PLAIN),
    PHASE(paths_that_are_no_directory_are_refused, PLAIN),
    PHASE(no_permission_is_said_so, FORKS),
    PHASE(second_opener_here_is_refused, PLAIN),
    PHASE(second_opener_elsewhere_is_told_our_pid, FORKS),
    PHASE(closed_store_refuses_every_call, PLAIN),
    PHASE(logs_of_the_first_implementation_are_refused, PLAIN),
    PHASE(damaged_files_never_give_a_wrong_value, PLAIN),
    {NULL, PLAIN, NULL},
};
