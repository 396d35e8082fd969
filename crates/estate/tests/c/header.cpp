// The header from C++: every name can be used, and a global read works.
#include <cstdint>
#include <cstdio>
#include <estate.h>
#include <memory>
#include <string>

int main()
{
    estate_options options = ESTATE_OPTIONS;
    options.cluster = "cpp";
    options.node = "one";
    options.backend = "local";
    estate *opened = nullptr;
    if (estate_open(&options, &opened) != ESTATE_OK)
        return std::fprintf(stderr, "%s\n", estate_last_error()), 1;
    const std::unique_ptr<estate, decltype(&estate_close)> es(opened, estate_close);
    const std::string key = "packets";
    std::int64_t sum = 0;
    if (estate_add(es.get(), key.data(), key.size(), 3, &sum) != ESTATE_OK || sum != 3)
        return 1;
    estate_query query = ESTATE_QUERY;
    query.pattern = key.data();
    query.pattern_size = key.size();
    int calls = 0;
    query.context = &calls;
    query.reducer = [](void *context, const estate_entry *items, std::size_t count,
                       estate_value *result) {
        ++*static_cast<int *>(context);
        result->integer = items[0].value.integer * static_cast<std::int64_t>(count);
        return static_cast<int>(ESTATE_OK);
    };
    estate_value *value = nullptr;
    if (estate_get_global(es.get(), &query, &value) != ESTATE_OK)
        return std::fprintf(stderr, "%s\n", estate_last_error()), 1;
    const bool right = value->integer == 3 && calls == 1;
    estate_free(value);
    std::puts("C++ agrees");
    return right ? 0 : 1;
}
