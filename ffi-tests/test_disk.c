/* A disk that is full, or fails: what a program is told. The calls of the system that a store makes
 * go through the functions below, since a program's own come before those of the C library. */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int write_fails, sync_fails, read_fails; /* With this error, unless 0. */

static int refused(int error) {
    errno = error;
    return error != 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset);
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) {
    return refused(write_fails) ? -1 : syscall(SYS_pwrite64, fd, bytes, len, offset);
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t offset);
ssize_t pread64(int fd, void *bytes, size_t len, off_t offset) {
    return refused(read_fails) ? -1 : syscall(SYS_pread64, fd, bytes, len, offset);
}

int fdatasync(int fd) {
    return refused(sync_fails) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* A store whose every write and read is a call of the system; NULL with sled. */
static kvs_store *open_direct(const char *dir, uint64_t durability) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_WRITE_MODE, KVS_WRITE_MODE_DIRECT));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_READ_MODE, KVS_READ_POSITIONED));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_DURABILITY, durability));
    if (engine_is("kvs")) CHECK_OK(kvs_open(dir, options, &store));
    kvs_options_free(options);
    return store;
}

static void a_full_disk_is_said_so_and_the_store_goes_on(const char *dir) {
    kvs_store *store = open_direct(dir, KVS_DURABILITY_OS);
    char value[1000];

    if (store == NULL) return;
    memset(value, 'v', sizeof value);
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("Oslo")));
    write_fails = ENOSPC;
    CHECK_FAILS(KVS_ERR_NO_SPACE, dir, kvs_set(store, "new", 3, value, sizeof value));
    CHECK_NUMBER(ENOSPC, kvs_last_os_error());
    CHECK_VALUE(store, "k", "Oslo");
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("new")));
    write_fails = 0;
    CHECK_OK(kvs_set(store, "new", 3, value, sizeof value));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
}

static void a_disk_that_does_not_sync_poisons_the_store(const char *dir) {
    kvs_store *store = open_direct(dir, KVS_DURABILITY_SYNC);

    if (store == NULL) return;
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("Oslo")));
    sync_fails = EIO;
    CHECK_FAILS(KVS_ERR_IO, dir, kvs_set(store, BYTES("k"), BYTES("Bergen")));
    CHECK_NUMBER(EIO, kvs_last_os_error());
    sync_fails = 0;
    CHECK_FAILS(KVS_ERR_POISONED, "reopen", kvs_set(store, BYTES("k"), BYTES("Bergen")));
    CHECK_STATUS(KVS_OK, kvs_contains(store, BYTES("k")));
    CHECK(kvs_close(store) < 0);
    kvs_store_free(store);

    store = open_direct(dir, KVS_DURABILITY_SYNC);
    CHECK_OK(kvs_contains(store, BYTES("k")));
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("Bergen")));
    kvs_store_free(store);
}

static void a_disk_that_does_not_read_is_named(const char *dir) {
    kvs_store *store = open_direct(dir, KVS_DURABILITY_OS);
    char room[64];
    size_t len = 99;

    if (store == NULL) return;
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("Oslo")));
    read_fails = EIO;
    CHECK_FAILS(KVS_ERR_IO, "seg-", kvs_get_into(store, "k", 1, room, sizeof room, &len));
    CHECK(strstr(kvs_last_error(), dir) != NULL && len == 0);
    CHECK_NUMBER(EIO, kvs_last_os_error());
    read_fails = 0;
    CHECK_VALUE(store, "k", "Oslo");
    kvs_store_free(store);
}

/* Beside the file, the text of damage says where in it. */
static void damage_is_named_by_file_and_offset(const char *dir) {
    kvs_store *store = open_direct(dir, KVS_DURABILITY_OS);
    char value[1000], room[1000], named[64];
    const char *file, *place;
    long offset;
    size_t len = 99;

    if (store == NULL) return;
    memset(value, 'v', sizeof value);
    CHECK_OK(kvs_set(store, "k", 1, value, sizeof value));
    damage(dir);
    CHECK_FAILS(KVS_ERR_CORRUPT, dir, kvs_get_into(store, "k", 1, room, sizeof room, &len));
    file = strstr(kvs_last_error(), "seg-");
    place = strstr(kvs_last_error(), "at byte ");
    if (CHECK(file != NULL && place != NULL && sscanf(file, "%63[^ ]", named) == 1)) {
        CHECK(access(path_in(dir, named), F_OK) == 0);
        CHECK(sscanf(place, "at byte %ld", &offset) == 1 && offset > 0 && offset < 1100);
    }
    CHECK_NUMBER(0, kvs_last_os_error());
    kvs_store_free(store);
}

const phase disk_phases[] = {
    PHASE(a_full_disk_is_said_so_and_the_store_goes_on, PLAIN),
    PHASE(a_disk_that_does_not_sync_poisons_the_store, PLAIN),
    PHASE(a_disk_that_does_not_read_is_named, PLAIN),
    PHASE(damage_is_named_by_file_and_offset, PLAIN),
    {NULL, PLAIN, NULL},
};
