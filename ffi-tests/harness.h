/*
 * A small test harness: phases with names that say the promise, each in a fresh directory.
 *
 * A failed check is counted and printed with its place, and the phase goes on, so one run shows
 * every failure. Checks may be made from any thread. A forked child counts for itself and hands
 * its count to the parent as its exit status (see child_end and check_child).
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>
#include <sys/types.h>

#include "kvs.h"

/* gcc says so by the first, clang by the second. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
#elif defined(__has_feature)
#define UNDER_THREAD_SANITIZER __has_feature(thread_sanitizer)
#else
#define UNDER_THREAD_SANITIZER 0
#endif

/* What a phase does besides calling the library, so that a run can leave it out. */
#define PLAIN 0
#define FORKS 1

typedef struct phase {
    const char *name;
    int kind;
    void (*run)(const char *dir);
} phase;

/* A row of a table of phases. */
#define PHASE(function, kind) {#function, kind, function}

/* One table per file, ended by a phase without a name. */
extern const phase basics_phases[];
extern const phase refusals_phases[];
extern const phase lifetimes_phases[];
extern const phase server_phases[];
extern const phase writes_phases[];
extern const phase expiry_phases[];
extern const phase views_phases[];
extern const phase scans_phases[];
extern const phase upkeep_phases[];
extern const phase disk_phases[];

/* One of each handle, for the checks that generate.py derives from kvs.h. */
typedef struct fixture {
    kvs_store *store;
    kvs_options *options;
    kvs_batch *batch;
    kvs_iter *iter;
    kvs_server *server;
    const char *unused; /* A path at which there is nothing. */
} fixture;

void check_null_is_refused(const fixture *f);
void check_null_is_accepted_elsewhere(void);
void check_negative_lengths_are_refused(const fixture *f);
void check_closed_is_refused(const fixture *f);
void check_forked_is_refused(const fixture *f);

/* What kvs.h says of an option that takes a number. The last row has no name. */
typedef struct option_row {
    int32_t id;
    const char *name;
    uint64_t value; /* The default. */
    int has_range;
    uint64_t lowest, highest;
} option_row;
extern const option_row option_rows[];

/* Opens a store in dir and makes one of each; the server only if it is wanted. */
void make_fixture(fixture *f, const char *dir, int with_server);
void free_fixture(fixture *f);

#define CHECK(condition) check_true((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_STATUS(expected, call) \
    check_status((expected), (call), #call, __FILE__, __LINE__)
#define CHECK_OK(call) CHECK_STATUS(KVS_OK, call)
/* The call fails as expected, and the text of the failure mentions `words`. */
#define CHECK_FAILS(expected, words, call) \
    check_fails((expected), (words), (call), #call, __FILE__, __LINE__)
#define CHECK_NUMBER(expected, actual) \
    check_number((long long)(expected), (long long)(actual), #actual, __FILE__, __LINE__)
/* The value of a key, read both ways there are. */
#define CHECK_VALUE(store, key, value) \
    check_value((store), (key), sizeof(key) - 1, (value), sizeof(value) - 1, __FILE__, __LINE__)
#define BYTES(text) (text), (sizeof(text) - 1)

int check_true(int condition, const char *text, const char *file, int line);
int check_status(kvs_status expected, kvs_status actual, const char *text, const char *file,
                 int line);
int check_fails(kvs_status expected, const char *words, kvs_status actual, const char *text,
                const char *file, int line);
int check_number(long long expected, long long actual, const char *text, const char *file,
                 int line);
int check_value(kvs_store *store, const void *key, size_t key_len, const void *value,
                size_t value_len, const char *file, int line);

/* Entries of a directory of the process, its threads or its open files; -1 where there is no /proc,
 * so that there is nothing to compare. */
int entries_in(const char *dir);
/* There are as many as there were, at the latest in a moment. */
#define CHECK_ENTRIES(expected, dir) check_entries((expected), (dir), __FILE__, __LINE__)
void check_entries(int expected, const char *dir, const char *file, int line);

/* Whether `len` bytes at `at` are all `byte`. */
int all_bytes_are(int byte, const void *at, size_t len);

/* Prints and counts a failure that no check above fits. */
void fail(const char *file, int line, const char *format, ...);

/* Opens dir with the engine that the run is about; NULL if that fails, which is counted. */
kvs_store *open_store(const char *dir);
/* Options for that engine. */
kvs_options *engine_options(void);
/* Whether the run is about the engine of that name. */
int engine_is(const char *name);

/* How often to repeat something: `normal`, or as much less or more as the run was told. */
int rounds(int normal);
/* Runs this program again, in the same mode, to do `what` in `dir`; its output can be read from
 * *output. See children in harness.c. */
pid_t start_child(const char *what, const char *dir, int *output);
/* Opens dir in another process and copies what it printed: the name of the status and the text. */
void open_elsewhere(const char *dir, char *printed, size_t capacity);

/* "dir/name", in one of a few buffers that are used in turn. */
const char *path_in(const char *dir, const char *name);
void write_file(const char *path, const void *bytes, size_t len);
/* Flips a bit in the middle of the largest file of records in dir. */
void damage(const char *dir);

/* Ends a forked child: with the number of checks that failed in it. */
void child_end(int failures_before);
int failures_now(void);
/* Waits for a child, which must end with 0 failures. */
void check_child(pid_t child, const char *file, int line);
#define CHECK_CHILD(child) check_child((child), __FILE__, __LINE__)

#endif
