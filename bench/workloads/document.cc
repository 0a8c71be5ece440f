// SPDX-License-Identifier: Apache-2.0
// A document server: text in a JSON-like notation is generated, parsed into a tree of values,
// edited, written out again and dropped.
//   document [rounds] [records]
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench.h"

namespace {

struct Value {
  enum Kind : uint8_t { kNumber, kText, kArray, kObject } kind = kNumber;
  int64_t number = 0;
  std::string text;
  std::vector<std::unique_ptr<Value>> items;
  std::map<std::string, std::unique_ptr<Value>> fields;
};

void Generate(Rng& rng, int depth, std::string& out) {
  const uint64_t choice = depth == 0 ? RngBelow(&rng, 2) : RngBelow(&rng, 4);
  if (choice == 0) {
    out += std::to_string(RngBelow(&rng, 1000000));
  } else if (choice == 1) {
    out += '"';
    out.append(RngBetween(&rng, 1, 50), char('a' + RngBelow(&rng, 26)));
    out += '"';
  } else if (choice == 2) {
    out += '[';
    for (uint64_t i = RngBelow(&rng, 8); i > 0; --i) {
      Generate(rng, depth - 1, out);
      if (i > 1) out += ',';
    }
    out += ']';
  } else {
    out += '{';
    for (uint64_t i = RngBetween(&rng, 1, 8); i > 0; --i) {
      out += "\"field_" + std::to_string(RngBelow(&rng, 40)) + "\":";
      Generate(rng, depth - 1, out);
      if (i > 1) out += ',';
    }
    out += '}';
  }
}

std::string ParseText(const char*& at) {
  const char* begin = ++at;
  while (*at != '"') ++at;
  return std::string(begin, at++);
}

std::unique_ptr<Value> Parse(const char*& at) {
  auto value = std::make_unique<Value>();
  if (*at == '"') {
    value->kind = Value::kText;
    value->text = ParseText(at);
  } else if (*at == '[') {
    value->kind = Value::kArray;
    for (++at; *at != ']';) {
      value->items.push_back(Parse(at));
      if (*at == ',') ++at;
    }
    ++at;
  } else if (*at == '{') {
    value->kind = Value::kObject;
    for (++at; *at != '}';) {
      std::string name = ParseText(at);
      ++at;  // the colon
      value->fields[std::move(name)] = Parse(at);
      if (*at == ',') ++at;
    }
    ++at;
  } else {
    while (*at >= '0' && *at <= '9') value->number = value->number * 10 + (*at++ - '0');
  }
  return value;
}

void Edit(Value& value, Rng& rng) {
  if (value.kind == Value::kText && RngBelow(&rng, 4) == 0) value.text += value.text;
  for (auto& item : value.items) Edit(*item, rng);
  if (value.fields.size() > 3) value.fields.erase(value.fields.begin());
  for (auto& [name, field] : value.fields) Edit(*field, rng);
}

void Write(const Value& value, std::string& out) {
  switch (value.kind) {
    case Value::kNumber: out += std::to_string(value.number); return;
    case Value::kText: out += '"' + value.text + '"'; return;
    case Value::kArray:
      out += '[';
      for (const auto& item : value.items) Write(*item, out), out += ',';
      out += ']';
      return;
    case Value::kObject:
      out += '{';
      for (const auto& [name, field] : value.fields) {
        out += '"' + name + "\":";
        Write(*field, out);
        out += ',';
      }
      out += '}';
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = Argument(argc, argv, 1, 12);
  const long records = Argument(argc, argv, 2, 6000);
  Rng rng = RngSeed(21);
  uint64_t sum = 0;
  for (long round = 0; round < rounds; ++round) {
    std::string text = "[";
    for (long i = 0; i < records; ++i) {
      Generate(rng, 4, text);
      text += i + 1 < records ? ',' : ']';
    }
    const char* at = text.c_str();
    std::unique_ptr<Value> root = Parse(at);
    Edit(*root, rng);
    std::string out;
    Write(*root, out);
    for (size_t i = 0; i < out.size(); i += 97) sum = Mix(sum, uint64_t(out[i]));
    sum = Mix(sum, out.size());
  }
  return Finish(sum);
}
