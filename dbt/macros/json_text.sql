{#- Return a value within a JSON column as text. For another warehouse, define e.g. snowflake__json_text. -#}
{% macro json_text(column, path) -%}
  {{ return(adapter.dispatch('json_text', 'truto_segments')(column, path)) }}
{%- endmacro %}

{% macro default__json_text(column, path) -%}
  (cast({{ column }} as json)
  {%- for key in path[:-1] %} -> '{{ key }}'{% endfor %} ->> '{{ path[-1] }}')
{%- endmacro %}
