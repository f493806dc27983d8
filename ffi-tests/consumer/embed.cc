// A store inside a C++ program.
#include <iostream>

#include "kvs.hpp"

int main(int argc, char **argv) try {
    kvs::store store(argc > 1 ? argv[1] : "cities");
    store.set("no", "Oslo");
    for (const auto &[key, value] : store.scan_prefix("n")) std::cout << key << ": " << value << '\n';
    store.close(); // Says whether the last writes became durable.
    return 0;
} catch (const kvs::error &error) {
    std::cerr << error.name() << ": " << error.what() << '\n';
    return 1;
}
