/* [init] Every rule that a routing table must obey; those of vlacompile/routing/table.py. */
#include <string.h>

#include "base/diag.h"
#include "router/router.h"

static bool within(double x, double low, double high) { return x >= low && x <= high; }

static vlart_status_t beyond_limits(const vlart_router_t *router, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the routing table is larger than this library takes",
             "fit it on fewer instructions, or raise the limits of the library");
  vlart_where(diag, "%s", router->table.name);
  vlart_why(diag, "%u backbones, %u routes, %u clusters, %u and %u numbers per text and embedding",
            router->backbone_count, router->route_count, router->rule->cluster_count,
            router->rule->text_dim, router->rule->embedding_dim);
  return VLART_STATUS_UNSUPPORTED;
}

static const char *floats_fault(const vlart_router_t *router, uint32_t begin, uint32_t count,
                                uint64_t expected) {
  const vlart_table_t *floats = &router->table.tables[VLART_SECTION_FLOATS];
  if (count != expected) {
    return "a range of floats has another size than its rows";
  }
  const float *numbers = (const float *)(const void *)floats->records + begin;
  for (uint32_t i = 0; i < count; i++) {
    if (!within((double)numbers[i], -1e30, 1e30)) {
      return "a vector holds a NaN or an infinity";
    }
  }
  return NULL;
}

static const char *rule_fault(const vlart_router_t *router) {
  const vlart_router_record_t *r = router->rule;
  if (!within(r->prior_success, 0.05, 1e3) || !within(r->prior_failure, 0.05, 1e3) ||
      !within(r->strength, 0.1, 1e3)) {
    return "the prior is out of range";
  }
  if (!(r->delta >= 0.0 && r->delta < 1.0 && r->tau > 0.0 && r->tau < 1.0) ||
      !within(r->nearest_text, -1.0, 1.0) || !within(r->nearest_embedding, -1.0, 1.0)) {
    return "a threshold is out of range";
  }
  const char *fault = floats_fault(router, r->text_weight_begin, r->text_weight_count, r->text_dim);
  if (fault == NULL) {
    fault = floats_fault(router, r->text_centroid_begin, r->text_centroid_count,
                         (uint64_t)r->cluster_count * r->text_dim);
  }
  return fault != NULL
             ? fault
             : floats_fault(router, r->embedding_centroid_begin, r->embedding_centroid_count,
                            (uint64_t)r->cluster_count * r->embedding_dim);
}

static const char *backbone_fault(const vlart_router_t *router, uint32_t index) {
  const vlart_table_t *table = &router->table.tables[VLART_SECTION_BACKBONES];
  const vlart_backbone_record_t *b = vlart_record(table, index);
  for (uint32_t i = 0; i < index; i++) {
    const vlart_backbone_record_t *other = vlart_record(table, i);
    if (strcmp(vlart_string(&router->table, other->name), vlart_string(&router->table, b->name)) ==
        0) {
      return "two backbones have one name";
    }
  }
  return within(b->task_ms, 0.0, 1e9) && within(b->replan_ms, 0.0, 1e9) &&
                 within(b->replans_failed, 0.0, 1e9)
             ? NULL
             : "a cost is out of range";
}

static const char *text_fault(const vlart_router_t *router, uint32_t index) {
  const vlart_route_record_t *route = vlart_router_route(router, index);
  if (route->text == VLART_NONE) {
    return "an instruction is missing";
  }
  char normalised[VLART_MAX_INSTRUCTION + 1];
  const char *text = vlart_string(&router->table, route->text);
  size_t length = strlen(text);
  if (length == 0 || length > VLART_MAX_INSTRUCTION ||
      vlart_router_normalise(text, normalised) != length || strcmp(text, normalised) != 0) {
    return "an instruction is empty, too long or not normalised";
  }
  for (uint32_t i = 0; i < index; i++) {
    if (strcmp(vlart_string(&router->table, vlart_router_route(router, i)->text), text) == 0) {
      return "an instruction comes twice";
    }
  }
  return NULL;
}

static const char *route_fault(const vlart_router_t *router, uint32_t index) {
  const vlart_route_record_t *route = vlart_router_route(router, index);
  uint32_t clusters = router->rule->cluster_count;
  if (index < router->first_cluster) {
    const char *fault = text_fault(router, index);
    if (fault != NULL) {
      return fault;
    }
    if (route->cluster >= clusters) {
      return "an instruction is of no cluster";
    }
  } else {
    uint32_t number = index - router->first_cluster;
    if (route->text != VLART_NONE || route->cluster != (number < clusters ? number : VLART_NONE)) {
      return "the routes of unlisted instructions do not come last, one per cluster and one more";
    }
  }
  for (uint32_t k = 0; k < router->backbone_count; k++) {
    const vlart_evidence_record_t *e = vlart_router_evidence(router, index, k);
    if (!within(e->successes, 0.0, 1e9) || !within(e->failures, 0.0, 1e9) ||
        !within(e->replans, 0.0, 1e9) || e->successes + e->failures > 50000.0) {
      return "a number of the evidence is out of range";
    }
  }
  return NULL;
}

vlart_status_t vlart_router_read_table(vlart_router_t *router, const uint8_t *data, size_t bytes,
                                       const char *name, vlart_diag_t *diag) {
  vlart_container_t *table = &router->table;
  vlart_status_t status = vlart_container_open(data, bytes, VLART_ROUTING_MAGIC, name, diag, table);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  router->table_crc = ((const vlart_header_record_t *)(const void *)data)->payload_crc32;
  const vlart_table_t *rules = &table->tables[VLART_SECTION_ROUTER];
  if (rules->count != 1) {
    return vlart_corrupt(diag, name, "router", 0, "there are %u records instead of one",
                         rules->count);
  }
  router->rule = vlart_record(rules, 0);
  uint32_t clusters = router->rule->cluster_count;
  router->backbone_count = table->tables[VLART_SECTION_BACKBONES].count;
  router->route_count = table->tables[VLART_SECTION_ROUTES].count;
  if (router->backbone_count > VLART_MAX_BACKBONES || router->route_count > VLART_MAX_ROUTES ||
      clusters > VLART_MAX_CLUSTERS || router->rule->text_dim > VLART_MAX_ROUTE_DIM ||
      router->rule->embedding_dim > VLART_MAX_ROUTE_DIM) {
    return beyond_limits(router, diag);
  }
  if (router->backbone_count < 2 || clusters == 0 || router->rule->text_dim == 0 ||
      router->route_count < clusters + 1 ||
      table->tables[VLART_SECTION_EVIDENCE].count != router->route_count * router->backbone_count) {
    return vlart_corrupt(diag, name, "router", 0,
                         "%u backbones, %u routes and %u clusters do not "
                         "make a table with their evidence",
                         router->backbone_count, router->route_count, clusters);
  }
  router->first_cluster = router->route_count - clusters - 1;
  const char *fault = rule_fault(router);
  if (fault != NULL) {
    return vlart_corrupt(diag, name, "router", 0, "%s", fault);
  }
  for (uint32_t i = 0; i < router->backbone_count; i++) {
    fault = backbone_fault(router, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, name, "backbones", i, "%s", fault);
    }
  }
  for (uint32_t i = 0; i < router->route_count; i++) {
    fault = route_fault(router, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, name, "routes", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}
