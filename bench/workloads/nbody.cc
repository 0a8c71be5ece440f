// SPDX-License-Identifier: Apache-2.0
// Tree n-body simulation: bodies and the cells of an octree are separate heap objects; the tree is
// built, summarised, walked for every body and torn down in each step.
//   nbody [bodies] [steps]
#include <cmath>
#include <vector>

#include "bench.h"

namespace {

struct Vec {
  double x, y, z;
};

struct Body {
  Vec at, speed, pull;
  double mass;
};

// Inner cell, or leaf when body is set. A cell covers the cube [corner, corner + side).
struct Cell {
  Cell* child[8] = {};
  Body* body = nullptr;
  Vec corner, centre;
  double side, mass;
};

Cell* NewCell(Vec corner, double side) {
  Cell* cell = new Cell;
  cell->corner = corner;
  cell->side = side;
  return cell;
}

void Insert(Cell* cell, Body* body, int depth);

void InsertBelow(Cell* cell, Body* body, int depth) {
  const double half = cell->side / 2;
  const bool right = body->at.x >= cell->corner.x + half;
  const bool upper = body->at.y >= cell->corner.y + half;
  const bool front = body->at.z >= cell->corner.z + half;
  Cell*& child = cell->child[right + 2 * upper + 4 * front];
  if (child == nullptr) {
    child = NewCell({cell->corner.x + right * half, cell->corner.y + upper * half,
                     cell->corner.z + front * half}, half);
    child->body = body;
    return;
  }
  Insert(child, body, depth + 1);
}

void Insert(Cell* cell, Body* body, int depth) {
  if (Body* old = cell->body) {
    if (depth > 40) {  // two bodies in practically one place: merge them
      old->mass += body->mass;
      return;
    }
    cell->body = nullptr;
    InsertBelow(cell, old, depth);
  }
  InsertBelow(cell, body, depth);
}

void Summarise(Cell* cell) {
  if (cell->body) {
    cell->mass = cell->body->mass;
    cell->centre = cell->body->at;
    return;
  }
  double mass = 0;
  Vec sum = {0, 0, 0};
  for (Cell* child : cell->child) {
    if (!child) continue;
    Summarise(child);
    mass += child->mass;
    sum.x += child->mass * child->centre.x;
    sum.y += child->mass * child->centre.y;
    sum.z += child->mass * child->centre.z;
  }
  cell->mass = mass;
  cell->centre = {sum.x / mass, sum.y / mass, sum.z / mass};
}

void Attract(const Cell* cell, Body* body) {
  if (cell->body == body) return;
  const double dx = cell->centre.x - body->at.x, dy = cell->centre.y - body->at.y,
               dz = cell->centre.z - body->at.z;
  const double square = dx * dx + dy * dy + dz * dz + 1e-6;
  if (cell->body || cell->side * cell->side < square * 1.2) {
    const double scale = cell->mass / (square * std::sqrt(square));
    body->pull.x += dx * scale, body->pull.y += dy * scale, body->pull.z += dz * scale;
    return;
  }
  for (const Cell* child : cell->child) {
    if (child) Attract(child, body);
  }
}

void Destroy(Cell* cell) {
  for (Cell* child : cell->child) {
    if (child) Destroy(child);
  }
  delete cell;
}

double Clamp(double value) { return value < 0 ? 0 : value > 0.999999 ? 0.999999 : value; }

}  // namespace

int main(int argc, char** argv) {
  const long count = Argument(argc, argv, 1, 60000);
  const long steps = Argument(argc, argv, 2, 6);
  Rng rng = RngSeed(4);
  auto unit = [&] { return double(RngNext(&rng) >> 11) * 0x1p-53; };
  std::vector<Body*> bodies;
  for (long i = 0; i < count; ++i) {
    Body* body = new Body{};
    const double spread = unit();  // denser towards one corner
    body->at = {unit() * spread, unit() * spread, unit() * spread};
    body->mass = (0.5 + unit()) / double(count);
    bodies.push_back(body);
  }
  for (long step = 0; step < steps; ++step) {
    Cell* root = NewCell({0, 0, 0}, 1.0);
    for (Body* body : bodies) InsertBelow(root, body, 0);
    Summarise(root);
    for (Body* body : bodies) {
      body->pull = {0, 0, 0};
      Attract(root, body);
    }
    for (Body* body : bodies) {
      const double dt = 1e-3;
      body->speed.x += body->pull.x * dt, body->speed.y += body->pull.y * dt;
      body->speed.z += body->pull.z * dt;
      body->at = {Clamp(body->at.x + body->speed.x * dt), Clamp(body->at.y + body->speed.y * dt),
                  Clamp(body->at.z + body->speed.z * dt)};
    }
    Destroy(root);
  }
  uint64_t sum = 0;
  for (Body* body : bodies) {
    uint64_t bits;
    memcpy(&bits, &body->at.x, sizeof(bits));
    sum = Mix(sum, bits);
    delete body;
  }
  return Finish(sum);
}
