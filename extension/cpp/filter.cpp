//! Filters as SQL: comparisons, lists, NULL checks, and what joins them. Whatever else there is stays here.

#include "scan.hpp"

namespace openduck {

bool SayableType(const LogicalType &type) {
	if (type.HasAlias()) {
		return false;
	}
	switch (type.id()) {
	case LogicalTypeId::BOOLEAN:
	case LogicalTypeId::TINYINT:
	case LogicalTypeId::SMALLINT:
	case LogicalTypeId::INTEGER:
	case LogicalTypeId::BIGINT:
	case LogicalTypeId::HUGEINT:
	case LogicalTypeId::UTINYINT:
	case LogicalTypeId::USMALLINT:
	case LogicalTypeId::UINTEGER:
	case LogicalTypeId::UBIGINT:
	case LogicalTypeId::UHUGEINT:
	case LogicalTypeId::FLOAT:
	case LogicalTypeId::DOUBLE:
	case LogicalTypeId::DECIMAL:
	case LogicalTypeId::DATE:
	case LogicalTypeId::TIME:
	case LogicalTypeId::TIMESTAMP:
	case LogicalTypeId::TIMESTAMP_SEC:
	case LogicalTypeId::TIMESTAMP_MS:
	case LogicalTypeId::TIMESTAMP_NS:
	case LogicalTypeId::UUID:
	case LogicalTypeId::VARCHAR:
		return true;
	default:
		return false;
	}
}

static string ValueToSQL(const Value &value) {
	if (!SayableType(value.type())) {
		return string();
	}
	if (value.IsNull()) {
		return "CAST(NULL AS " + value.type().ToString() + ")";
	}
	auto text = value.ToString();
	if (text.find('\0') != string::npos) {
		return string();
	}
	if (value.type().IsIntegral() && value.type().id() != LogicalTypeId::HUGEINT &&
	    value.type().id() != LogicalTypeId::UHUGEINT) {
		return text;
	}
	// As text, so that no literal is taken for another type on its way.
	auto quoted = Value(text).ToSQLString();
	return value.type().id() == LogicalTypeId::VARCHAR ? quoted
	                                                   : "CAST(" + quoted + " AS " + value.type().ToString() + ")";
}

static string Operator(ExpressionType type) {
	switch (type) {
	case ExpressionType::COMPARE_EQUAL:
	case ExpressionType::COMPARE_NOTEQUAL:
	case ExpressionType::COMPARE_LESSTHAN:
	case ExpressionType::COMPARE_LESSTHANOREQUALTO:
	case ExpressionType::COMPARE_GREATERTHAN:
	case ExpressionType::COMPARE_GREATERTHANOREQUALTO:
	case ExpressionType::COMPARE_DISTINCT_FROM:
	case ExpressionType::COMPARE_NOT_DISTINCT_FROM:
		return ExpressionTypeToOperator(type);
	default:
		return string();
	}
}

static string Joined(const vector<unique_ptr<Expression>> &children, const string &column, const string &word,
                     bool all) {
	string joined;
	for (auto &child : children) {
		auto text = FilterToSQL(*child, column);
		if (text.empty()) {
			if (!all) {
				continue;
			}
			return string();
		}
		joined += (joined.empty() ? "" : word) + text;
	}
	return joined.empty() ? joined : "(" + joined + ")";
}

string FilterToSQL(const Expression &filter, const string &column) {
	auto type = filter.GetExpressionType();
	switch (filter.GetExpressionClass()) {
	case ExpressionClass::BOUND_REF:
		return column;
	case ExpressionClass::BOUND_CONSTANT:
		return ValueToSQL(filter.Cast<BoundConstantExpression>().GetValue());
	case ExpressionClass::BOUND_CONJUNCTION: {
		auto &children = filter.Cast<BoundConjunctionExpression>().GetChildren();
		if (type == ExpressionType::CONJUNCTION_AND) {
			// What may be left out may be left out of an AND, too.
			auto optional = ExpressionFilter::IsOptionalExpression(filter);
			return Joined(children, column, " AND ", !optional);
		}
		return Joined(children, column, " OR ", true);
	}
	case ExpressionClass::BOUND_FUNCTION: {
		auto &function = filter.Cast<BoundFunctionExpression>();
		auto inner = ExpressionFilter::GetOptionalFilterChild(filter);
		if (inner) {
			return FilterToSQL(*inner, column);
		}
		if (!BoundComparisonExpression::IsComparison(filter)) {
			return string();
		}
		auto sign = Operator(type);
		auto left = FilterToSQL(BoundComparisonExpression::Left(function), column);
		auto right = FilterToSQL(BoundComparisonExpression::Right(function), column);
		if (sign.empty() || left.empty() || right.empty()) {
			return string();
		}
		return "(" + left + " " + sign + " " + right + ")";
	}
	case ExpressionClass::BOUND_OPERATOR: {
		auto &children = filter.Cast<BoundOperatorExpression>().GetChildren();
		if (children.empty()) {
			return string();
		}
		auto first = FilterToSQL(*children[0], column);
		if (first.empty()) {
			return string();
		}
		switch (type) {
		case ExpressionType::OPERATOR_IS_NULL:
			return "(" + first + " IS NULL)";
		case ExpressionType::OPERATOR_IS_NOT_NULL:
			return "(" + first + " IS NOT NULL)";
		case ExpressionType::OPERATOR_NOT:
			return "(NOT " + first + ")";
		case ExpressionType::COMPARE_IN: {
			string list;
			for (idx_t i = 1; i < children.size(); i++) {
				auto text = FilterToSQL(*children[i], column);
				if (text.empty()) {
					return string();
				}
				list += (list.empty() ? "" : ", ") + text;
			}
			return "(" + first + " IN (" + list + "))";
		}
		default:
			return string();
		}
	}
	default:
		return string();
	}
}

} // namespace openduck
