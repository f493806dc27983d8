/* Stores that are open for reading only, beside the one that writes. */
#include "harness.h"

#include <pthread.h>
#include <string.h>

/* Opens dir for reading only; NULL, and no failure, on an engine that cannot. */
static kvs_store *open_view(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *view = NULL;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_READ_ONLY, 1));
    if (engine_is("kvs")) CHECK_OK(kvs_open(dir, options, &view));
    else CHECK_FAILS(KVS_ERR_UNSUPPORTED, "reading only", kvs_open(dir, options, &view));
    kvs_options_free(options);
    return view;
}

static uint64_t length(kvs_store *store) {
    uint64_t count = 99;
    CHECK_OK(kvs_len(store, &count));
    return count;
}

/* How many records are left of a scan. */
static int left_in(kvs_iter *iter) {
    const void *key, *value;
    size_t key_len, value_len;
    kvs_status status;
    int count = 0;

    while ((status = kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK) count++;
    CHECK_STATUS(KVS_END, status);
    return count;
}

static void a_view_shows_one_moment_until_it_is_refreshed(const char *dir) {
    kvs_store *store = open_store(dir), *view = open_view(dir);
    kvs_iter *ordered = NULL, *unordered = NULL;
    kvs_buf *kept = NULL;

    if (view == NULL) {
        CHECK_OK(kvs_refresh(store)); /* It always is as it is now. */
        kvs_store_free(store);
        return;
    }
    CHECK_OK(kvs_set(store, BYTES("a"), BYTES("1")));
    CHECK_NUMBER(0, length(view));
    CHECK_OK(kvs_refresh(view));
    CHECK_VALUE(view, "a", "1");
    CHECK_OK(kvs_get(view, BYTES("a"), &kept));
    CHECK_OK(kvs_scan(view, NULL, 0, NULL, 0, 0, &ordered));
    CHECK_OK(kvs_scan_unordered(view, 0, &unordered));

    CHECK_OK(kvs_set(store, BYTES("b"), BYTES("2")));
    CHECK_OK(kvs_set(store, BYTES("c"), BYTES("3")));
    CHECK_OK(kvs_remove(store, BYTES("a")));
    CHECK_VALUE(view, "a", "1");
    CHECK_OK(kvs_refresh(view));
    CHECK_OK(kvs_refresh(view));
    CHECK_NUMBER(2, length(view));
    CHECK_VALUE(view, "c", "3");
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(view, BYTES("a")));

    /* What was begun before keeps what it began with. */
    CHECK_NUMBER(1, left_in(ordered));
    CHECK_NUMBER(1, left_in(unordered));
    CHECK(kvs_buf_len(kept) == 1 && memcmp(kvs_buf_data(kept), "1", 1) == 0);
    kvs_buf_free(kept);
    kvs_iter_free(ordered);
    kvs_iter_free(unordered);

    CHECK_OK(kvs_refresh(store));
    CHECK_OK(kvs_close(view));
    CHECK_FAILS(KVS_ERR_CLOSED, "closed", kvs_refresh(view));
    kvs_store_free(view);
    CHECK_NUMBER(2, length(store));
    kvs_store_free(store);
}

static void a_view_refuses_every_write(const char *dir) {
    kvs_store *store = open_store(dir), *view;
    kvs_batch *batch = kvs_batch_new();
    const char *only = "reading only";

    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_OK(kvs_batch_set(batch, BYTES("k"), BYTES("w")));
    if ((view = open_view(dir)) != NULL) {
        const kvs_status no = KVS_ERR_READ_ONLY;
        CHECK_FAILS(no, only, kvs_set(view, BYTES("k"), BYTES("w")));
        CHECK_FAILS(no, only, kvs_set_with_expiry(view, BYTES("k"), BYTES("w"), 1));
        CHECK_FAILS(no, only, kvs_set_expiry(view, BYTES("k"), 1, NULL));
        CHECK_FAILS(no, only, kvs_remove(view, BYTES("k")));
        CHECK_FAILS(no, only, kvs_swap(view, BYTES("k"), BYTES("w"), NULL));
        CHECK_FAILS(no, only, kvs_write(view, batch, 0));
        CHECK_FAILS(no, only, kvs_clear(view));
        CHECK_VALUE(view, "k", "v");
        kvs_store_free(view);
    }
    CHECK_VALUE(store, "k", "v");
    kvs_batch_free(batch);
    kvs_store_free(store);
}

/* One writer, and threads that refresh a view and read it. */
typedef struct watched {
    kvs_store *store, *view;
    /* The last number whose write has returned; and whether it is over. */
    uint32_t written, over;
} watched;

static void *refresh_and_read(void *argument) {
    watched *w = argument;
    uint32_t seen = 0;

    while (!__atomic_load_n(&w->over, __ATOMIC_SEQ_CST)) {
        const uint32_t written = __atomic_load_n(&w->written, __ATOMIC_SEQ_CST);
        const kvs_status status = kvs_refresh(w->view);
        size_t len = 0;
        if (status == KVS_ERR_CLOSED) break;
        CHECK_OK(status);
        if (kvs_get_into(w->view, "n", 1, &seen, sizeof seen, &len) == KVS_ERR_CLOSED) break;
        if (!CHECK(seen >= written)) break;
    }
    return NULL;
}

static void a_refresh_shows_all_that_was_written_before_it(const char *dir) {
    pthread_t threads[4];
    watched w;
    uint32_t i;
    int t;

    memset(&w, 0, sizeof w);
    w.store = open_store(dir);
    CHECK_OK(kvs_set(w.store, "n", 1, &w.written, sizeof w.written));
    if ((w.view = open_view(dir)) != NULL) {
        for (t = 0; t < 4; t++)
            CHECK(pthread_create(&threads[t], NULL, refresh_and_read, &w) == 0);
        for (i = 1; i <= (uint32_t)rounds(20000); i++) {
            CHECK_OK(kvs_set(w.store, "n", 1, &i, sizeof i));
            __atomic_store_n(&w.written, i, __ATOMIC_SEQ_CST);
        }
        __atomic_store_n(&w.over, 1, __ATOMIC_SEQ_CST);
        for (t = 0; t < 4; t++) CHECK(pthread_join(threads[t], NULL) == 0);
        kvs_store_free(w.view);
    }
    kvs_store_free(w.store);
}

/* A view that is closed while it is being replaced stays closed. */
static void closing_beside_refreshes_ends_the_view(const char *dir) {
    kvs_store *store = open_store(dir);
    int round, t;

    for (round = 0; engine_is("kvs") && round < rounds(100); round++) {
        pthread_t threads[2];
        watched w;
        uint32_t i;
        memset(&w, 0, sizeof w);
        w.store = store;
        CHECK_OK(kvs_set(store, "n", 1, &w.written, sizeof w.written));
        if ((w.view = open_view(dir)) == NULL) break;
        for (t = 0; t < 2; t++)
            CHECK(pthread_create(&threads[t], NULL, refresh_and_read, &w) == 0);
        for (i = 0; i < 20; i++) CHECK_OK(kvs_set(store, "n", 1, &i, sizeof i));
        CHECK_OK(kvs_close(w.view));
        CHECK_STATUS(KVS_ERR_CLOSED, kvs_contains(w.view, "n", 1));
        __atomic_store_n(&w.over, 1, __ATOMIC_SEQ_CST);
        for (t = 0; t < 2; t++) CHECK(pthread_join(threads[t], NULL) == 0);
        CHECK_STATUS(KVS_ERR_CLOSED, kvs_contains(w.view, "n", 1));
        kvs_store_free(w.view);
    }
    kvs_store_free(store);
}

static void a_view_needs_a_store(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *view = NULL;

    if (engine_is("kvs")) {
        CHECK_OK(kvs_options_set_u64(options, KVS_OPT_READ_ONLY, 1));
        CHECK_FAILS(KVS_ERR_NO_STORE, dir, kvs_open(path_in(dir, "none"), options, &view));
        CHECK_OK(kvs_options_set_u64(options, KVS_OPT_EXCLUSIVE, 1));
        CHECK_FAILS(KVS_ERR_INVALID, "exclusive", kvs_open(dir, options, &view));
        CHECK(view == NULL);
    }
    kvs_options_free(options);
}

const phase views_phases[] = {
    PHASE(a_view_shows_one_moment_until_it_is_refreshed, PLAIN),
    PHASE(a_view_refuses_every_write, PLAIN),
    PHASE(a_refresh_shows_all_that_was_written_before_it, PLAIN),
    PHASE(closing_beside_refreshes_ends_the_view, PLAIN),
    PHASE(a_view_needs_a_store, PLAIN),
    {NULL, PLAIN, NULL},
};
