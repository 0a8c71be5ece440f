// SPDX-License-Identifier: Apache-2.0
// Input for the compiler workload: templates of ours that expand a lot, over standard containers.
#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

namespace input {

template <int N>
struct Tag {
  static constexpr int value = N;
};

template <int N, typename Inner>
struct Layer {
  Inner inner;
  std::array<long, N % 7 + 1> pad{};
  template <typename Visitor>
  long Visit(Visitor&& visitor) {
    pad[0] += visitor(Tag<N>{}, inner);
    return std::accumulate(pad.begin(), pad.end(), inner.Visit(visitor));
  }
};

struct Bottom {
  template <typename Visitor>
  long Visit(Visitor&&) { return 1; }
};

template <int N>
struct Tower {
  using Type = Layer<N, typename Tower<N - 1>::Type>;
};
template <>
struct Tower<0> {
  using Type = Bottom;
};

template <int N>
struct Store {
  std::map<std::string, std::vector<std::tuple<Tag<N>, std::string, double>>> rows;
  std::unordered_map<int, std::variant<int, std::string, std::unique_ptr<Store>>> cells;

  long Fill(int count) {
    for (int i = 0; i < count; ++i) {
      rows[std::to_string(i % 10)].emplace_back(Tag<N>{}, std::to_string(i), i * 0.5);
      if (i % 3 == 0) cells[i] = i;
      if (i % 3 == 1) cells[i] = std::to_string(i);
      if (i % 3 == 2) cells[i] = std::make_unique<Store>();
    }
    long total = 0;
    for (auto& [key, list] : rows) {
      std::sort(list.begin(), list.end(),
                [](const auto& a, const auto& b) { return std::get<1>(a) < std::get<1>(b); });
      total += long(list.size()) + long(key.size());
    }
    for (auto& [key, cell] : cells) {
      total += std::visit([key = key](const auto& value) -> long {
        using Value = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<Value, int>) return value + N;
        else if constexpr (std::is_same_v<Value, std::string>) return long(value.size());
        else return key;
      }, cell);
    }
    return total;
  }
};

template <int... Is>
long FillAll(std::integer_sequence<int, Is...>) {
  return (Store<Is>{}.Fill(Is + 10) + ... + 0);
}

template <int... Is>
long VisitAll(std::integer_sequence<int, Is...>) {
  return (typename Tower<Is>::Type{}.Visit([](auto tag, auto& inner) {
    return long(tag.value) + long(sizeof(inner));
  }) + ... + 0);
}

long Match(const std::string& text) {
  static const std::regex pattern("([a-z]+)=([0-9]+|\"[^\"]*\")");
  std::ostringstream out;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
    out << (*it)[1].str() << ':' << (*it)[2].str() << '\n';
  }
  return long(out.str().size());
}

}  // namespace input

long Everything(const std::string& text) {
  return input::FillAll(std::make_integer_sequence<int, 3>{}) +
         input::VisitAll(std::make_integer_sequence<int, 12>{}) + input::Match(text);
}
