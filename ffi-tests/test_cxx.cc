// What kvs.hpp adds to kvs.h: ownership, exceptions, absence as optional, scans as ranges.
// usage: test-cxx DIRECTORY, which is empty
#include <iostream>
#if __cplusplus >= 202002L
#include <algorithm>
#include <iterator>
#include <ranges>
#endif
#include <string>
#include <type_traits>
#include <vector>

#include "kvs.hpp"

namespace {

int failures = 0;

void check(bool holds, const char *text, int line) {
    if (holds) return;
    ++failures;
    std::cerr << "test_cxx.cc:" << line << ": not so: " << text << '\n';
}
#define CHECK(condition) check((condition), #condition, __LINE__)

template <typename Call>
kvs_status code_of(Call call) {
    try {
        call();
    } catch (const kvs::error &error) {
        CHECK(std::string(error.what()).size() > 3);
        CHECK(std::string(error.name()).rfind("KVS_ERR_", 0) == 0);
        return error.code();
    }
    return KVS_OK;
}

std::vector<std::string> keys_of(kvs::scan records) {
    std::vector<std::string> keys;
    for (const auto &[key, value] : records) {
        keys.emplace_back(key);
        CHECK(value.empty() || value == std::string(key) + "!");
    }
    return keys;
}

void keys_and_values(kvs::store &store) {
    const std::string bytes("a\0b", 3);
    CHECK(!store.get("k") && !store.lend("k") && !store.contains("k") && !store.remove("k"));
    store.set("k", bytes);
    store.set("", {});
    CHECK(store.get("k") == bytes && store.get({}) == "" && store.size() == 2);
    const auto lent = store.lend("k");
    CHECK(store.remove("k") && store.remove(""));
    CHECK(lent && lent->view() == bytes);

    CHECK(!store.swap("k", "1") && store.swap("k", "")->view() == "1");
    CHECK(store.swap("k", std::nullopt)->view().empty() && !store.contains("k"));
    CHECK(!store.compare_and_swap("k", "", "2") && !store.contains("k"));
    CHECK(store.compare_and_swap("k", std::nullopt, std::string_view()));
    CHECK(!store.compare_and_swap("k", std::nullopt, "2"));
    CHECK(store.compare_and_swap("k", std::string_view(), std::nullopt) && store.size() == 0);
}

void batches_and_scans(kvs::store &store) {
    using keys = std::vector<std::string>;
    kvs::batch writes;
    for (const char *key : {"b", "a", "ab", "c"}) writes.set(key, std::string(key) + "!");
    CHECK(writes.remove("absent").size() == 5);
    store.write(writes, KVS_WRITE_SYNC);
    writes.clear();
    CHECK(writes.size() == 0 && store.size() == 4);

    CHECK((keys_of(store.scan()) == keys{"a", "ab", "b", "c"}));
    CHECK((keys_of(store.scan("ab", "c")) == keys{"ab", "b"}));
    CHECK((keys_of(store.scan(std::nullopt, "")) == keys{}));
    CHECK((keys_of(store.scan_prefix("a", KVS_SCAN_REVERSE)) == keys{"ab", "a"}));
    CHECK(keys_of(store.scan_unordered(KVS_SCAN_KEYS_ONLY)).size() == 4);
    CHECK(code_of([&] { store.scan({}, {}, 64); }) == KVS_ERR_UNSUPPORTED);
    CHECK(code_of([&] { writes.set(std::string(65536, 'k'), ""); }) == KVS_ERR_KEY_TOO_LONG);

    CHECK(store.stats().key_count == 4);
    store.sync();
    store.compact();
}

#if __cplusplus >= 202002L
// A scan is what C++20 calls a range that can be gone through once.
static_assert(std::input_iterator<kvs::scan::iterator>);
static_assert(std::sentinel_for<kvs::scan::end_of_scan, kvs::scan::iterator>);
static_assert(std::ranges::input_range<kvs::scan> && !std::ranges::forward_range<kvs::scan>);

void ranges(kvs::store &store) {
    kvs::scan records = store.scan();
    const auto found = std::ranges::find_if(records, [](const auto &it) { return it.first > "a"; });
    CHECK(found != records.end() && found->second == "ab!");
    std::size_t len = 0;
    std::ranges::for_each(store.scan(), [&](const auto &record) { len += record.first.size(); });
    CHECK(len == 5);
}
#else
void ranges(kvs::store &) {}
#endif

void expiry(kvs::store &store) {
    const std::uint64_t later = UINT64_C(1) << 62;
    CHECK(!store.expiry("e") && !store.set_expiry("e", later));
    store.set_with_expiry("e", "1", later);
    CHECK(store.expiry("e") == later && store.get("e") == "1");
    CHECK(store.set_expiry("e", KVS_EXPIRY_NEVER) == later);
    CHECK(store.expiry("e") == KVS_EXPIRY_NEVER);
    kvs::batch writes;
    store.write(writes.set_with_expiry("e", "2", 1));
    CHECK(!store.contains("e") && !store.expiry("e"));
}

void views(kvs::store &store, const std::string &path) {
    kvs::options chosen;
    kvs::store view(path, chosen.set(KVS_OPT_READ_ONLY, 1));
    store.set("seen", "1");
    CHECK(!view.contains("seen"));
    view.refresh();
    CHECK(view.get("seen") == "1");
    CHECK(code_of([&] { view.clear(); }) == KVS_ERR_READ_ONLY);
    store.clear();
    CHECK(store.size() == 0 && view.contains("seen"));
}

} // namespace

int main(int argc, char **argv) {
    static_assert(!std::is_copy_constructible_v<kvs::store>);
    static_assert(std::is_nothrow_move_constructible_v<kvs::store>);
    static_assert(std::is_nothrow_move_constructible_v<kvs::scan>);
    if (argc != 2) return 2;
    const std::string dir = argv[1];

    kvs::options chosen;
    chosen.set(KVS_OPT_ENGINE, "kvs").set(KVS_OPT_DURABILITY, KVS_DURABILITY_OS);
    chosen.set(KVS_OPT_WRITE_MODE, KVS_WRITE_MODE_DIRECT);
    CHECK(code_of([&] { chosen.set(KVS_OPT_CREATE, 2); }) == KVS_ERR_INVALID);
    kvs::store opened(dir + "/store", chosen);
    kvs::store store = std::move(opened);
    CHECK(store.stats().has_tail == 0);
    keys_and_values(store);
    expiry(store);
    views(store, dir + "/store");
    batches_and_scans(store);
    ranges(store);
    CHECK(code_of([&] { kvs::store second(dir + "/store"); }) == KVS_ERR_LOCKED);
    store.checkpoint(dir + "/copy");
    CHECK(kvs::store(dir + "/copy").size() == 4);

    kvs::server server(store);
    CHECK(server.port() != 0 && !server.wait(0));
    CHECK(code_of([&] { kvs::server other(store, "nonsense"); }) == KVS_ERR_NET);
    server.stop(1000);
    CHECK(server.wait());

    kvs::scan left = store.scan();
    auto place = left.begin();
    CHECK(place->first == "a");
    store.close();
    store.close();
    CHECK(place->second == "a!");
    CHECK(code_of([&] { ++place; }) == KVS_ERR_CLOSED);
    CHECK(code_of([&] { store.get("a"); }) == KVS_ERR_CLOSED);
    if (failures == 0) std::cout << "test_cxx: kvs.hpp keeps its promises\n";
    return failures > 0;
}
