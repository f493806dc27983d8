#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures; /* Changed by many threads: only with __atomic builtins. */
static const char *engine = "kvs";
static int slow, repeat = 1;
static const char *program;

static const phase *const tables[] = {basics_phases, refusals_phases, lifetimes_phases,
                                      server_phases, writes_phases,   expiry_phases,
                                      views_phases,  scans_phases,    upkeep_phases,
                                      disk_phases};

int failures_now(void) {
    return __atomic_load_n(&failures, __ATOMIC_SEQ_CST);
}

void fail(const char *file, int line, const char *format, ...) {
    va_list arguments;
    char text[1024];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: %s\n", file, line, text);
    __atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST);
}

int check_true(int condition, const char *text, const char *file, int line) {
    if (!condition) fail(file, line, "not so: %s", text);
    return condition;
}

int check_status(kvs_status expected, kvs_status actual, const char *text, const char *file,
                 int line) {
    if (actual == expected) return 1;
    fail(file, line, "%s\n    is %s, not %s%s%s", text, kvs_status_name(actual),
         kvs_status_name(expected), actual < 0 ? ": " : "", actual < 0 ? kvs_last_error() : "");
    return 0;
}

int check_fails(kvs_status expected, const char *words, kvs_status actual, const char *text,
                const char *file, int line) {
    if (!check_status(expected, actual, text, file, line)) return 0;
    if (strstr(kvs_last_error(), words) != NULL) return 1;
    fail(file, line, "%s\n    fails with \"%s\", which lacks \"%s\"", text, kvs_last_error(),
         words);
    return 0;
}

int check_number(long long expected, long long actual, const char *text, const char *file,
                 int line) {
    if (actual == expected) return 1;
    fail(file, line, "%s is %lld, not %lld", text, actual, expected);
    return 0;
}

int check_value(kvs_store *store, const void *key, size_t key_len, const void *value,
                size_t value_len, const char *file, int line) {
    kvs_buf *buf = NULL;
    char room[256];
    size_t len = 0;
    int before = failures_now();

    if (check_status(KVS_OK, kvs_get(store, key, key_len, &buf), "kvs_get", file, line)) {
        if (kvs_buf_len(buf) != value_len || memcmp(kvs_buf_data(buf), value, value_len) != 0)
            fail(file, line, "kvs_get gives another value");
        kvs_buf_free(buf);
    }
    if (check_status(KVS_OK, kvs_get_into(store, key, key_len, room, sizeof room, &len),
                     "kvs_get_into", file, line)) {
        if (len != value_len || memcmp(room, value, value_len) != 0)
            fail(file, line, "kvs_get_into gives another value");
    }
    return failures_now() == before;
}

int entries_in(const char *dir) {
    DIR *list = opendir(dir);
    int count = 0;
    if (list == NULL) return -1;
    while (readdir(list) != NULL) count++;
    closedir(list);
    return count;
}

/* Prints where the links of a directory lead. */
static void list_links(const char *dir) {
    DIR *list = opendir(dir);
    struct dirent *entry;
    char target[512];
    while (list != NULL && (entry = readdir(list)) != NULL) {
        ssize_t len = readlink(path_in(dir, entry->d_name), target, sizeof target - 1);
        if (len > 0) fprintf(stderr, "    %s -> %.*s\n", entry->d_name, (int)len, target);
    }
    if (list != NULL) closedir(list);
}

void check_entries(int expected, const char *dir, const char *file, int line) {
    int tries, count = entries_in(dir);
    /* ThreadSanitizer starts threads and opens pipes of its own, sled threads. */
    if (UNDER_THREAD_SANITIZER || (!engine_is("kvs") && strstr(dir, "/task") != NULL)) return;
    /* A thread that was waited for may be listed for a moment longer. */
    for (tries = 0; count != expected && tries < 1000; tries++) {
        usleep(2000);
        count = entries_in(dir);
    }
    if (count != expected) {
        fail(file, line, "%s has %d entries, not %d", dir, count, expected);
        list_links(dir);
    }
}

int all_bytes_are(int byte, const void *at, size_t len) {
    const unsigned char *bytes = at;
    while (len > 0 && *bytes == byte) bytes++, len--;
    return len == 0;
}

void make_fixture(fixture *f, const char *dir, int with_server) {
    memset(f, 0, sizeof *f);
    f->unused = path_in(dir, "unused");
    f->store = open_store(dir);
    f->options = kvs_options_new();
    f->batch = kvs_batch_new();
    CHECK_OK(kvs_set(f->store, BYTES("k"), BYTES("Oslo")));
    CHECK_OK(kvs_batch_set(f->batch, BYTES("batch"), BYTES("v")));
    CHECK_OK(kvs_scan(f->store, NULL, 0, NULL, 0, 0, &f->iter));
    if (with_server) CHECK_OK(kvs_server_start(f->store, "127.0.0.1:0", NULL, &f->server));
}

void free_fixture(fixture *f) {
    kvs_server_free(f->server);
    kvs_iter_free(f->iter);
    kvs_batch_free(f->batch);
    kvs_options_free(f->options);
    kvs_store_free(f->store);
}

int rounds(int normal) {
    return slow ? (normal + 19) / 20 : normal * repeat;
}

int engine_is(const char *name) {
    return strcmp(engine, name) == 0;
}

kvs_options *engine_options(void) {
    kvs_options *options = kvs_options_new();
    CHECK(options != NULL);
    CHECK_OK(kvs_options_set_str(options, KVS_OPT_ENGINE, engine, strlen(engine)));
    return options;
}

kvs_store *open_store(const char *dir) {
    kvs_store *store = NULL;
    kvs_options *options = engine_options();
    CHECK_OK(kvs_open(dir, options, &store));
    kvs_options_free(options);
    return store;
}

const char *path_in(const char *dir, const char *name) {
    static char buffers[8][512];
    static int next;
    char *buffer = buffers[next++ % 8];
    snprintf(buffer, sizeof buffers[0], "%s/%s", dir, name);
    return buffer;
}

void write_file(const char *path, const void *bytes, size_t len) {
    FILE *file = fopen(path, "wb");
    if (!CHECK(file != NULL)) return;
    CHECK_NUMBER(len, fwrite(bytes, 1, len, file));
    CHECK_NUMBER(0, fclose(file));
}

void damage(const char *dir) {
    DIR *list = opendir(dir);
    struct dirent *entry;
    char path[512] = "", byte = 0;
    long longest = 0;
    FILE *file;

    while (list != NULL && (entry = readdir(list)) != NULL) {
        long len;
        if (strstr(entry->d_name, "seg-") != entry->d_name) continue;
        file = fopen(path_in(dir, entry->d_name), "rb");
        if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (len = ftell(file)) <= longest) {
            if (file != NULL) fclose(file);
            continue;
        }
        longest = len;
        snprintf(path, sizeof path, "%s", path_in(dir, entry->d_name));
        fclose(file);
    }
    if (list != NULL) closedir(list);
    file = fopen(path, "r+b");
    if (!CHECK(file != NULL)) return;
    CHECK(fseek(file, longest / 2, SEEK_SET) == 0 && fread(&byte, 1, 1, file) == 1);
    byte ^= 0x10;
    CHECK(fseek(file, longest / 2, SEEK_SET) == 0 && fwrite(&byte, 1, 1, file) == 1);
    fclose(file);
}

void child_end(int failures_before) {
    int failed = failures_now() - failures_before;
    fflush(NULL);
    _exit(failed > 100 ? 100 : failed);
}

void check_child(pid_t child, const char *file, int line) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail(file, line, "no child: %s", strerror(errno));
    else if (!WIFEXITED(status))
        fail(file, line, "the child died of signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        fail(file, line, "%d checks failed in the child", WEXITSTATUS(status));
}

pid_t start_child(const char *what, const char *dir, int *output) {
    int ends[2];
    pid_t child;
    if (!CHECK(pipe(ends) == 0)) return -1;
    fflush(NULL);
    child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "--engine", engine, what, dir, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *output = ends[0];
    return child;
}

void open_elsewhere(const char *dir, char *printed, size_t capacity) {
    int output = -1;
    size_t len = 0;
    ssize_t got = 1;
    pid_t child = start_child("--child-open", dir, &output);

    while (got > 0 && len < capacity - 1) {
        got = read(output, printed + len, capacity - 1 - len);
        if (got > 0) len += (size_t)got;
    }
    printed[len] = '\0';
    close(output);
    CHECK_CHILD(child);
}

/* Child: says what opening the directory comes to. */
static int child_open(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    kvs_status status = kvs_open(dir, options, &store);
    printf("%s %s", kvs_status_name(status), status < 0 ? kvs_last_error() : "");
    kvs_options_free(options);
    kvs_store_free(store);
    return failures_now();
}

/* Child: sets "0", "1", ... durably, and prints a number once its write was acknowledged. */
static int child_write(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    uint32_t i;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_DURABILITY, KVS_DURABILITY_SYNC));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_LOCK_TIMEOUT_MS, 5000));
    if (!CHECK_OK(kvs_open(dir, options, &store))) return failures_now();
    for (i = 0; CHECK_OK(kvs_set(store, &i, sizeof i, &i, sizeof i)); i++) {
        if (write(STDOUT_FILENO, &i, sizeof i) != sizeof i) break;
    }
    return failures_now();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

/* Runs one phase in a directory of its own; whether all its checks held. */
static int run_phase(const phase *phase) {
    const int before = failures_now(), files = entries_in("/proc/self/fd");
    const int threads = entries_in("/proc/self/task");
    const char *tmp = getenv("TMPDIR");
    char dir[512];

    snprintf(dir, sizeof dir, "%s/kvs-ffi-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) {
        fail(__FILE__, __LINE__, "cannot make %s: %s", dir, strerror(errno));
        return 0;
    }
    phase->run(dir);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    CHECK_ENTRIES(files, "/proc/self/fd");
    CHECK_ENTRIES(threads, "/proc/self/task");
    return failures_now() == before;
}

static void usage(const char *program) {
    fprintf(stderr,
            "usage: %s [--engine kvs|sled] [--no-fork] [--slow | --repeat N] [--list | --run NAME]\n"
            "  --no-fork   leave out the phases that fork or kill processes\n"
            "  --slow      repeat less, for runs under a checker\n"
            "  --repeat N  repeat N times as often what is repeated at all\n",
            program);
    exit(2);
}

int main(int argc, char **argv) {
    const char *only = NULL;
    int list = 0, no_fork = 0, ran = 0, bad = 0;
    size_t t;
    int i;

    program = argv[0];
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) list = 1;
        else if (strcmp(argv[i], "--no-fork") == 0) no_fork = 1;
        else if (strcmp(argv[i], "--run") == 0 && i + 1 < argc) only = argv[++i];
        else if (strcmp(argv[i], "--engine") == 0 && i + 1 < argc) engine = argv[++i];
        else if (strcmp(argv[i], "--slow") == 0) slow = 1;
        else if (strcmp(argv[i], "--repeat") == 0 && i + 1 < argc) repeat = atoi(argv[++i]);
        else if (strcmp(argv[i], "--child-open") == 0 && i + 1 < argc) return child_open(argv[++i]);
        else if (strcmp(argv[i], "--child-write") == 0 && i + 1 < argc)
            return child_write(argv[++i]);
        else usage(argv[0]);
    }
    for (t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        const phase *phase;
        for (phase = tables[t]; phase->name != NULL; phase++) {
            int good;
            if (only != NULL && strcmp(only, phase->name) != 0) continue;
            if (no_fork && phase->kind == FORKS) continue;
            if (list) {
                puts(phase->name);
                continue;
            }
            good = run_phase(phase);
            printf("%s %s\n", good ? "PASS" : "FAIL", phase->name);
            fflush(stdout);
            ran++;
            bad += !good;
        }
    }
    if (list) return 0;
    printf("%d phases on engine %s, %d failed (%d checks)\n", ran, engine, bad, failures_now());
    return ran == 0 || bad > 0;
}
